"""The library of C++ plugins on a device: the script that compiles it, what is compared before TensorRT loads it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from neurocompile.targets import find_target
from neurocompile.targets.trt.plugins.cpp_source import sources
from neurocompile.targets.trt.remains import remaining, scripts
from runtime.bundle import Bundle
from runtime.engines import Host
from runtime.errors import UserError
from runtime.plugins import library
from trt_cpp import toolbox as tools

IMAGES = tools.chain(), tools.state()
TARGET = find_target("trt-bf16@jetson-orin", "10.3")
HOST = Host("10.3.0.30", 87)
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed (Debian: apt install g++)")


def write(root: Path) -> Bundle:
    """As much of a bundle as plugins need."""
    files = sources(IMAGES)
    target = {"plugins": sorted(files), "plugin_kind": "cpp", "plugin_names": sorted(image.name for image in IMAGES)}
    hashes = {}
    for name, data in (files | scripts(TARGET, "cpp")).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        hashes[name] = {"sha256": hashlib.sha256(data).hexdigest()}
    return Bundle(root, {"target": target, "files": hashes}, program=None)


def script(root: Path, name: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess:
    return tools.call(["bash", root / name, *arguments], env={**os.environ, **variables})


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A bundle whose script has run."""
    root = tmp_path_factory.mktemp("device") / "net.neuro"
    write(root)
    done = script(root, library.SCRIPT, *tools.HERE_ARE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith(
        "net.plugins/libneurocompile_plugins.so with the headers of TensorRT 10.3"
    )
    return root.parent


@pytest.fixture
def bundle(built, tmp_path, monkeypatch) -> Bundle:
    """A copy of it, in a process that has loaded nothing."""
    monkeypatch.setattr(library, "_registered", {})
    copy = shutil.copytree(built, tmp_path / "copy")
    return write(copy / "net.neuro")


@needs_compiler
def test_the_script_makes_a_library_that_does_what_the_images_say(bundle, tmp_path):
    path = library.check(bundle, HOST)
    assert path == bundle.root.parent / "net.plugins" / "libneurocompile_plugins.so"
    table = json.loads((path.parent / library.TABLE).read_text())
    assert (table["tensorrt"], table["machine"]) == ("10.3", os.uname().machine)
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, library.TABLE]
    shapes = ((2, 111, 7), (3, 3))
    answers, asked = tools.Host(tmp_path)(path, tools.request(IMAGES[0], shapes))
    outputs, workspace, launches = tools.expected(IMAGES[0], shapes)
    assert (answers[:2], answers[2]["workspace"]) == (outputs, workspace)
    assert [row for row in asked if row["call"] == "launch"] == launches * 2


@needs_compiler
def test_a_dry_run_writes_nothing(tmp_path):
    bundle = write(tmp_path / "net.neuro")
    done = script(bundle.root, library.SCRIPT, "--dry-run", *tools.HERE_ARE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "+ g++ -std=c++17 -O2 -fPIC -shared -fvisibility=hidden -Wall -Wextra -isystem" in done.stdout
    assert "plugins/cpp/images.cpp" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["net.neuro"]


@needs_compiler
@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (("--quick",), {}, "unknown option --quick"),
        (
            ("--tensorrt", "/nowhere", "--cuda", tools.CUDA_HEADERS),
            {},
            "NvInferRuntime.h is not found; install",
        ),
        (
            ("--tensorrt", tools.TENSORRT_HEADERS, "--cuda", "/nowhere"),
            {},
            "cuda.h is not found; install CUDA's",
        ),
        (tools.HERE_ARE, {"CXX": "g++-none"}, "g++-none is not installed"),
        (
            tools.HERE_ARE,
            {"CXX": "g++ -DSHIM_TENSORRT=1100"},
            f"the headers in {tools.TENSORRT_HEADERS} are of TensorRT 11.0, and the bundle was exported for 10.3",
        ),
    ],
)
def test_the_script_refuses_in_one_line(tmp_path, arguments, variables, message):
    bundle = write(tmp_path / "net.neuro")
    done = script(bundle.root, library.SCRIPT, *arguments, **variables)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["net.neuro"]


@needs_compiler
def test_code_that_does_not_compile_leaves_no_library(tmp_path):
    bundle = write(tmp_path / "net.neuro")
    (bundle.root / "plugins/cpp/plugin.cpp").write_text("no C++")
    done = script(bundle.root, library.SCRIPT, *tools.HERE_ARE)
    assert done.returncode == 1
    assert list((tmp_path / "net.plugins").iterdir()) == []


@pytest.mark.skipif(
    not shutil.which("shellcheck"), reason="shellcheck is not installed (Debian: apt install shellcheck)"
)
def test_a_linter_passes_the_scripts(tmp_path):
    bundle = write(tmp_path / "net.neuro")
    done = tools.call(["shellcheck", *bundle.root.glob("*.sh")])
    assert (done.returncode, done.stdout) == (0, "")


def refuse(message: str, act) -> None:
    with pytest.raises(UserError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert library.SCRIPT in str(caught.value) or "new one" in str(caught.value)


@needs_compiler
def test_a_library_that_was_not_compiled_yet_or_was_changed_is_refused(bundle):
    folder = library.folder_of(bundle)
    path, table = folder / library.LIBRARY, folder / library.TABLE
    text, data = table.read_text(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refuse("is not the library that was compiled", lambda: library.check(bundle, HOST))
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert library.check(bundle, HOST) == path
    for old, new, message in (
        ('"10.3"', '"11.0"', r"was compiled for TensorRT 11\.0 and this machine has 10\.3\.0\.30"),
        (os.uname().machine, "vax", "was compiled on vax and this machine is"),
        ('"sources": "', '"sources": "0', "was compiled from other sources than those of"),
        ("{", "", "is no table of plugins"),
        ('"sha256"', '"sha"', "is no table of plugins"),
    ):
        assert old in text
        table.write_text(text.replace(old, new))
        refuse(message, lambda: library.check(bundle, HOST))
    table.write_text(text)
    path.unlink()
    refuse(f"needs the plugin {IMAGES[0].name}, which is compiled where", lambda: library.check(bundle, HOST))
    shutil.rmtree(folder)
    refuse("which is compiled where it runs and was not yet", lambda: library.check(bundle, HOST))


@needs_compiler
def test_a_library_of_other_sources_is_refused(bundle):
    bundle.manifest["files"]["plugins/cpp/images.cpp"] = {"sha256": "0" * 64}
    refuse("was compiled from other sources than those of", lambda: library.check(bundle, HOST))


def registry(names: list[str], handle: object = "capsule") -> SimpleNamespace:
    """TensorRT's module with a registry that a library fills with these."""
    loaded: list[str] = []
    present: list[SimpleNamespace] = [SimpleNamespace(name="ROIAlign_TRT")]

    def load_library(path: str) -> object:
        loaded.append(path)
        present.extend(SimpleNamespace(name=name) for name in names)
        return handle

    made = SimpleNamespace(load_library=load_library, all_creators=present)
    return SimpleNamespace(get_plugin_registry=lambda: made, loaded=loaded, __version__="10.3.0.30")


@needs_compiler
def test_the_library_is_loaded_once_and_looked_at(bundle):
    names = [image.name for image in IMAGES]
    trt = registry(names)
    library.register(bundle, HOST, trt)
    library.register(bundle, HOST, trt)
    assert trt.loaded == [str(library.check(bundle, HOST))]
    library._registered[names[1]] = "another"
    refuse(f"has loaded another library with the plugin {names[0]}", lambda: library.register(bundle, HOST, trt))


@needs_compiler
def test_what_tensorrt_does_not_take_is_refused(bundle):
    names = [image.name for image in IMAGES]
    refuse("cannot be loaded by TensorRT 10", lambda: library.register(bundle, HOST, registry([], None)))
    refuse(
        f"should hold the plugin {names[1]} and lacks it", lambda: library.register(bundle, HOST, registry(names[:1]))
    )
    assert library._registered == {}


def test_bundles_without_such_plugins_load_nothing(tmp_path):
    for target in ({}, {"plugin_kind": "aot", "plugin_names": ["a"]}):
        library.register(Bundle(tmp_path, {"target": target, "files": {}}, program=None), HOST, trt=None)


REAL = """
import sys
from pathlib import Path
import tensorrt_rtx as trt
from runtime.bundle import Bundle
from runtime.engines import Host
from runtime.plugins import library
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
names = sys.argv[2:]
library.check = lambda bundle, host: Path(sys.argv[1])
target = {"plugin_kind": "cpp", "plugin_names": names}
library.register(Bundle(Path("net.neuro"), {"target": target, "files": {}}, None), Host("11.0", 87), trt)
registry = trt.get_plugin_registry()
for name in names:
    creator = registry.get_creator(name, "1", "neurocompile")
    plugin = creator.create_plugin("node", trt.PluginFieldCollection([]), trt.TensorRTPhase.BUILD)
    kinds = (getattr(trt.PluginCapabilityType, kind) for kind in ("CORE", "BUILD", "RUNTIME"))
    core, build, runtime = map(plugin.get_capability_interface, kinds)
    print(*(each.interface_info.kind for each in (core, build, runtime)), build.interface_info.major)
    print(core.plugin_name, core.plugin_version, core.plugin_namespace)
    print(build.num_outputs, build.format_combination_limit, build.metadata_string, build.timing_cache_id)
    found = creator.create_plugin("node", trt.PluginFieldCollection([]), trt.TensorRTPhase.RUNTIME)
    print(found is None)
"""


@needs_compiler
@pytest.mark.skipif(not find_spec("tensorrt_rtx"), reason="tensorrt-rtx is not installed")
def test_the_registry_of_a_real_tensorrt_takes_it(tmp_path):
    """TensorRT for RTX, whose builder takes none; its module calls functions in the order that we declare."""
    path = tools.compile_library(IMAGES, tmp_path, "11.0")
    names = [image.name for image in IMAGES]
    done = tools.call([sys.executable, "-c", REAL, path, *names])
    assert done.returncode == 0, done.stderr
    expected = [
        line
        for name in names
        for line in (
            "PLUGIN_V3ONE_CORE PLUGIN_V3ONE_BUILD PLUGIN_V3ONE_RUNTIME 2",
            f"{name} 1 neurocompile",
            f"2 100 {name} {name}",
            "True",
        )
    ]
    assert done.stdout.splitlines() == expected


def test_what_remains_is_one_sentence_and_a_script(tmp_path):
    bundle = write(tmp_path / "net.neuro")
    said = remaining(TARGET, "cpp")
    where = "a jetson-orin with an sm_87 GPU and TensorRT 10.3"
    assert said.startswith(f"no engine was built and no plugin ran anywhere: on {where}, run `bash build.sh`")
    assert "compiles the plugins" in said
    assert "plugins" not in remaining(TARGET)
    assert list(scripts(TARGET)) == ["build.sh"]
    done = script(bundle.root, "build.sh", "--dry-run", *tools.HERE_ARE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"+ python3 -m runtime.verify {bundle.root}"
    assert f"Wanted: {where}, its" in (bundle.root / "build.sh").read_text()
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    done = script(bundle.root, "build.sh", PYTHON=str(python))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {python} does not find neurocompile's package runtime; pip install")
    (bundle.root / library.SCRIPT).unlink()
    done = script(bundle.root, "build.sh", "--quick")
    assert done.returncode == 2
    assert done.stderr == f"error: unknown option --quick; see the head of {bundle.root}/build.sh\n"
