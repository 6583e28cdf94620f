"""`export --plugins cpp`: what the bundle holds, its script on a device, and a session that needs the library."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

pytest.importorskip("triton", reason="Triton is published for Linux only")

import fake_tensorrt as fake
from neurocompile.sequences import shipped_sequence
from neurocompile.targets.trt import rtx
from neurocompile.targets.trt.stand_in import stand_in
from runtime.backends import tensorrt as backend
from runtime.backends.cudart import Cuda
from runtime.bundle import open_bundle
from runtime.errors import UserError
from runtime.plugins import library
from trt_cpp.toolbox import HERE_ARE

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed (Debian: apt install g++)")


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory) -> Path:
    """A bundle for a Jetson Orin, where its script has run."""
    from export.pipeline import export_model

    folder = tmp_path_factory.mktemp("trt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtx, "obstacle", lambda: "left out, for speed")
        made = export_model(
            checkpoint,
            "trt-bf16@jetson-orin",
            folder / "tiny.neuro",
            plugins="cpp",
            recording=shipped_sequence(600),
        )
    done = script(made.path)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def script(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", root / library.SCRIPT, *HERE_ARE, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def bundle(made, tmp_path, monkeypatch):
    """A copy of it with its library, an empty cache, and a process that has loaded nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_registered", {})
    return open_bundle(shutil.copytree(made, tmp_path / "copy") / "tiny.neuro")


def plugins_in(graph: bytes) -> list[onnx.NodeProto]:
    return [node for node in onnx.load_from_string(graph).graph.node if node.domain]


def tensorrt(bundle, capability: int = 87, version: str = "10.3.0.30", names: list[str] | None = None):
    """TensorRT's module: its parser knows the creators of loaded libraries, its engines run twins of such graphs."""
    driver = fake.Library(capability)
    trt = fake.module(driver, version)
    present = [SimpleNamespace(name="ROIAlign_TRT")]
    trt.loaded, trt.driver = [], driver

    def load_library(path: str) -> str:
        trt.loaded.append(path)
        # A plugin's name stands in the library as it is.
        held = re.findall(rb"([A-Z]\w+_[0-9a-f]{12})\x00", Path(path).read_bytes())
        present.extend(SimpleNamespace(name=name.decode()) for name in (held if names is None else ()))
        return "capsule"

    registry = SimpleNamespace(load_library=load_library, all_creators=present)
    trt.get_plugin_registry = lambda: registry
    twin = bundle.read("native/chunk.onnx")
    whole = trt.OnnxParser

    class Parser(whole):
        def parse(self, graph: bytes) -> bool:
            wanted = {node.op_type for node in plugins_in(graph)}
            assert wanted <= {creator.name for creator in present}, "a plugin is wanted before it is there"
            return super().parse(twin if wanted else graph)

    trt.OnnxParser = Parser
    return trt


def opened(bundle, trt, **options):
    return backend.open_tensorrt(bundle, trt=trt, cuda=Cuda(trt.driver), **options)


def test_the_bundle_holds_sources_scripts_and_nodes_of_those_names(bundle):
    bundle.verify_files()
    target, build = bundle.manifest["target"], bundle.manifest["build"]
    assert (target["tensorrt"], target["capability"], target["plugin_kind"]) == ("10.3", 87, "cpp")
    nodes = plugins_in(bundle.graphs()["chunk"])
    assert {node.op_type for node in nodes} == set(target["plugin_names"])
    for node in nodes:
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert given == {"plugin_namespace": b"neurocompile", "plugin_version": b"1"}
    assert {"plugins/cpp/images.cpp", "plugins/cpp/plugin.cpp"} <= set(target["plugins"])
    assert {library.SCRIPT, "build.sh"} <= set(bundle.manifest["files"])
    where = "on a jetson-orin with an sm_87 GPU and TensorRT 10.3"
    assert f"{where}, run `bash build.sh` in the bundle, which compiles" in build["remaining"]
    code = bundle.read("plugins/cpp/images.cpp").decode()
    assert code.count(".target sm_87") == len(re.findall(r"\.visible \.entry ", code)) >= len(target["plugin_names"])
    assert not [line for line in code.splitlines() if ".file" in line or os.getcwd() in line]


def test_a_session_loads_the_library_then_reads_the_graphs(bundle):
    trt = tensorrt(bundle)
    session = opened(bundle, trt)
    assert trt.loaded == [str(library.folder_of(bundle) / library.LIBRARY)]
    graphs = {**bundle.graphs(), "chunk": bundle.read("native/chunk.onnx")}
    wanted = stand_in(bundle.program, graphs, "bf16").open(1.0)
    events = shipped_sequence(900).events
    session.push(events)
    wanted.push(events)
    np.testing.assert_array_equal(session.readout(), wanted.readout())
    again = tensorrt(bundle)
    library._registered.clear()
    opened(bundle, again)
    assert (again.seen.built, len(again.loaded)) == (0, 1), "kept engines need the library too"


def refuse(message: str, bundle, **how) -> None:
    trt = tensorrt(bundle, **how)
    with pytest.raises(UserError, match=message) as caught:
        opened(bundle, trt)
    assert "\n" not in str(caught.value)
    assert (trt.seen.built, trt.seen.deserialised) == (0, [])


def test_another_machine_is_refused_before_the_library_is_loaded(bundle):
    refuse(r"exported for sm_87 and the GPU here is sm_86; export it for trt-bf16@sm86", bundle, capability=86)
    refuse(r"exported for TensorRT 10\.3 and this machine has 11\.4\.1", bundle, version="11.4.1")
    refuse("should hold the plugin DiagonalScan_.* and lacks it; run `bash ", bundle, names=[])


def test_a_missing_or_changed_library_is_refused(bundle):
    path = library.folder_of(bundle) / library.LIBRARY
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refuse("is not the library that was compiled", bundle)
    shutil.rmtree(path.parent)
    refuse("needs the plugin DiagonalScan_.*, which is compiled where it runs and was not yet; run `bash ", bundle)


def test_changed_sources_make_a_library_that_is_refused(bundle):
    path = bundle.root / "plugins/cpp/images.cpp"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text(path.read_text().replace("add.s32", "sub.s32", 1))
    assert hashlib.sha256(path.read_bytes()).hexdigest() != before
    assert script(bundle.root).returncode == 0
    refuse("was compiled from other sources than those of", bundle)


def test_the_script_for_what_remains_begins_with_the_plugins(bundle):
    def build(*arguments: str) -> subprocess.CompletedProcess:
        command = ["bash", str(bundle.root / "build.sh"), "--dry-run", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = build(*map(str, HERE_ARE))
    assert (done.returncode, done.stderr) == (0, "")
    steps = [line for line in done.stdout.splitlines() if line.startswith("+ ")]
    assert [step.split()[1] for step in steps] == ["bash", "mkdir", "g++", "write", "python3"]
    assert steps[-1] == f"+ python3 -m runtime.verify {bundle.root}"
    done = build("--tensorrt", "/nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: NvInferRuntime.h is not found; install TensorRT's headers")
    assert "runtime.verify" not in done.stdout


PARSE = """
import sys
import tensorrt_rtx as trt

class Logger(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
    def log(self, severity, message):
        print(message, flush=True)

logger = Logger()
builder = trt.Builder(logger)
for path in sys.argv[2:]:
    trt.get_plugin_registry().load_library(path)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
with open(sys.argv[1], "rb") as graph:
    parser.parse(graph.read())
print([parser.get_error(number).desc() for number in range(parser.num_errors)])
"""


@pytest.mark.skipif(not find_spec("tensorrt_rtx"), reason="tensorrt-rtx is not installed")
def test_a_real_parser_finds_the_plugins_of_the_graph(bundle):
    """TensorRT for RTX: its parser makes the plugin, then the product, which takes none, ends the process."""
    path = str(library.folder_of(bundle) / library.LIBRARY)
    names = bundle.manifest["target"]["plugin_names"]
    for libraries in ((path,), ()):
        command = [sys.executable, "-c", PARSE, str(bundle.root / "graphs" / "chunk.onnx"), *libraries]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        made = [name for name in names if f"Successfully created plugin: {name}" in done.stdout]
        assert bool(made) is bool(libraries), done.stdout[-2000:]
        assert ("Plugin not found, are the plugin name, version, and namespace correct?" in done.stdout) is not bool(
            made
        )
