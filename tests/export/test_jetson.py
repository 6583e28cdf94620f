"""The Jetson kit: complete, true to its sums, scripts that a linter passes and that say what they would do."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import export.jetson as jetson
from neurocompile.sequences import shipped_sequence
from neurocompile.targets import find_target
from neurocompile.targets.trt import rtx
from neurocompile.targets.trt.remains import scripts
from runtime.bundle import TRACE, open_bundle
from runtime.errors import UserError
from runtime.events.read import read_recording
from runtime.trace import Trace

WHY = "this machine compiles for nothing else"


@pytest.fixture(scope="module")
def kit(checkpoint, tmp_path_factory) -> Path:
    """A kit without the library for the processor."""
    folder = tmp_path_factory.mktemp("kits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jetson, "_fallback", lambda *_: WHY)
        patch.setattr(rtx, "obstacle", lambda: "left out, for speed")
        made = jetson.export_kit(
            checkpoint, "trt-fp32@jetson-orin", folder / "tiny.kit", recording=shipped_sequence(600)
        )
    assert made.path == folder / "tiny.kit"
    assert WHY in made.notes[-1]
    assert [path.name for path in folder.iterdir()] == ["tiny.kit"]
    return made.path


@pytest.fixture
def with_plugins(kit, tmp_path) -> Path:
    """A copy of the kit as if its bundle had C++ plugins."""
    copy = shutil.copytree(kit, tmp_path / "plugged.kit")
    for name, data in scripts(find_target("trt-fp32@jetson-orin"), "cpp").items():
        (copy / "tiny.neuro" / name).write_bytes(data)
    return copy


def script(kit: Path, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(kit / name), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        # The scripts say python3: the interpreter that runs the tests has what they need.
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **variables},
    )


def test_the_kit_is_complete_and_its_sums_are_true(kit):
    sums = dict(reversed(line.split("  ")) for line in (kit / "SHA256SUMS").read_text().splitlines())
    present = {path.relative_to(kit).as_posix() for path in kit.rglob("*") if path.is_file()}
    assert set(sums) == present - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((kit / name).read_bytes()).hexdigest() == digest
    assert {"runtime/engines.py", "tiny.neuro/manifest.json", "README.md", "install.sh"} <= present
    for name in (*jetson.SCRIPTS, *jetson.TEXTS):
        text = (kit / name).read_text()
        assert not [word for word in ("NAME", "TENSORRT", "DEVICE", "FALLBACK", "PLUGINS") if f"@{word}@" in text]
    readme = (kit / "README.md").read_text()
    assert "# tiny for jetson-orin" in readme
    assert WHY in readme
    bundle = open_bundle(kit / "tiny.neuro")
    assert bundle.manifest["target"].items() >= {"tensorrt": "10.3", "capability": 87, "device": "jetson-orin"}.items()
    events = read_recording(kit / "recording.npz").events
    assert (events.t == Trace.from_bytes(bundle.read(TRACE)).events.t).all()


@pytest.mark.skipif(
    not shutil.which("shellcheck"), reason="shellcheck is not installed (Debian: apt install shellcheck)"
)
def test_a_linter_passes_the_scripts(kit):
    scripts = [str(kit / name) for name in jetson.SCRIPTS]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("release", "said", "cuda"),
    [
        ("R36.4", "TensorRT 10;", "12-6"),
        ("R38.2", "TensorRT 10 or 11;", "13-0"),
        ("R39.1", "TensorRT 10 or 11;", "13-2"),
    ],
)
def test_install_says_what_it_would_do(kit, with_plugins, release, said, cuda):
    done = script(kit, "install.sh", "--dry-run", "--release", release)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Jetson Linux {release}, {said} the kit was exported for TensorRT 10.3" in done.stdout
    install = "+ sudo apt-get install --yes --no-install-recommends python3-numpy python3-libnvinfer libnvinfer-bin"
    assert install in done.stdout.splitlines()
    done = script(with_plugins, "install.sh", "--dry-run", "--release", release)
    headers = f"libnvinfer-headers-dev cuda-cudart-dev-{cuda} cuda-crt-{cuda}"
    assert f"{install} g++ {headers}" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("install.sh", ("--dry-run", "--release", "R35.4"), "release 'R35.4' is none that this kit knows"),
        ("install.sh", ("--quick",), "unknown option --quick"),
        ("build.sh", ("--quick",), "unknown option --quick"),
        ("bench.sh", ("--quick",), "unknown option --quick"),
    ],
)
def test_scripts_refuse_in_one_line(kit, name, arguments, message):
    done = script(kit, name, *arguments)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_dry_runs_change_nothing(kit):
    before = sorted(path for path in kit.rglob("*"))
    for name, arguments in (("build.sh", ("--dry-run",)), ("bench.sh", ("--dry-run", "--max", "--", "--events", "9"))):
        done = script(kit, name, *arguments)
        assert (done.returncode, done.stderr) == (0, ""), name
    assert "+ sudo nvpmodel -m 0" in done.stdout
    assert "--batch 1 --json" in done.stdout
    assert done.stdout.count("--events 9") == 1, "the library for the processor is not there to be timed"
    assert sorted(path for path in kit.rglob("*")) == before


@pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed (Debian: apt install g++)")
def test_build_begins_with_the_plugins(with_plugins):
    done = script(with_plugins, "build.sh", "--dry-run")
    steps = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("+ ")]
    assert steps[:2] == ["sha256sum", "bash"]
    assert steps[-1] == "python3"
    assert f"{with_plugins}/tiny.neuro/build_plugins.sh --dry-run" in done.stdout
    if "is not found; install" in done.stderr:
        assert "the plugins are not compiled" in done.stdout


def test_build_checks_the_sums_and_then_asks_for_the_device(kit, tmp_path):
    copy = shutil.copytree(kit, tmp_path / "copy.kit")
    done = script(copy, "build.sh", PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 1
    assert "tiny.neuro cannot run here: it was built for jetson-orin" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the engines do not hold here, and this kit has no library")
    (copy / "runtime" / "engines.py").write_text("changed")
    refused_whole(copy, "runtime/engines.py")


def refused_whole(kit: Path, name: str) -> None:
    for command in (("build.sh",), ("install.sh", "--release", "R36.4")):
        done = script(kit, *command)
        assert done.returncode == 1
        assert done.stderr == f"error: {name} of this kit is not the file that was exported; copy the kit again\n"
        assert "runtime.verify" not in done.stdout
        assert "apt-get" not in done.stdout


@pytest.mark.parametrize("name", ["tiny.neuro/manifest.json", "recording.npz", "SHA256SUMS"])
def test_a_kit_with_a_changed_or_missing_file_does_nothing(kit, tmp_path, name):
    copy = shutil.copytree(kit, tmp_path / "copy.kit")
    if name == "SHA256SUMS":
        (copy / name).unlink()
    else:
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
    refused_whole(copy, name)
    if name == "recording.npz":
        (copy / name).unlink()
        refused_whole(copy, name)


def test_a_kit_is_for_tensorrt_on_a_jetson():
    wanted = {"trt-bf16@jetson-orin": True, "trt-bf16@sm87": False, "cpu-fp32@jetson-orin": False}
    for text, kit in wanted.items():
        assert jetson.wants_kit(find_target(text), None) is kit
    assert jetson.wants_kit(find_target("trt-bf16@jetson-orin"), Path("X"))
    assert not jetson.wants_kit(find_target("trt-bf16@jetson-orin"), Path("X.neuro"))


def test_a_kit_that_cannot_be_put_in_place_leaves_the_old_one(kit, tmp_path, monkeypatch):
    old = Path(shutil.copytree(kit, tmp_path / "old.kit"))
    (old / "mark").write_text("old")
    new = Path(shutil.copytree(kit, tmp_path / "work" / "kit"))
    rename = os.rename

    def failing(source, target):
        if Path(source) == new:
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(jetson.os, "rename", failing)
    with pytest.raises(OSError, match="no"):
        jetson._replace(new, old)
    assert (old / "mark").read_text() == "old"
    monkeypatch.undo()
    jetson._replace(new, old)
    assert not (old / "mark").exists()


def test_only_a_kit_is_replaced(checkpoint, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="exists and is no kit"):
        jetson.export_kit(checkpoint, "trt-fp32@jetson-orin", tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_failed_export_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"gone\.pt"):
        jetson.export_kit(tmp_path / "gone.pt", "trt-fp32@jetson-orin", tmp_path / "a" / "new.kit")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("ziglang"), reason="ziglang is not installed (pip install 'neurocompile[cross]')")
def test_the_kit_holds_a_library_for_the_processor(checkpoint, tmp_path):
    made = jetson.export_kit(checkpoint, "trt-bf16@jetson-orin", tmp_path / "tiny.kit", recording=shipped_sequence(600))
    bundle = open_bundle(made.path / "tiny.cpu.neuro")
    assert bundle.target == "cpu-fp32@jetson-orin"
    assert (bundle.root / "libmodel.so").read_bytes()[18:20] == b"\xb7\x00", "an ELF file for AArch64"
    assert "the same network as a C library" in (made.path / "README.md").read_text()
