"""The parts of a Jetson kit that are machine code of its processor, executed in QEMU. No Jetson ran them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is published for Linux only")

import export.jetson as jetson
from models.checkpoint import open_checkpoint
from neurocompile.reference import TorchExecutor
from neurocompile.sequences import shipped_sequence
from neurocompile.targets.cpu.toolchains.emulation import find_emulator
from neurocompile.targets.trt import rtx
from runtime.bundle import open_bundle
from runtime.events.read import read_recording
from runtime.events.write import write_recording
from runtime.plugins import library
from runtime.session import ScheduledSession
from trt_cpp import toolbox as tools

EMULATOR = find_emulator("aarch64", "jetson-orin")
CXX = "aarch64-linux-gnu-g++"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(isinstance(EMULATOR, str), reason=str(EMULATOR)),
    pytest.mark.skipif(not shutil.which(CXX), reason=f"{CXX} is not installed (Debian: apt install g++-{CXX[:-4]})"),
    pytest.mark.skipif(not find_spec("ziglang"), reason="ziglang is not installed (pip install 'neurocompile[cross]')"),
]


@pytest.fixture(scope="module")
def kit(checkpoint, tmp_path_factory) -> Path:
    """A whole kit, with plugins and the library for the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtx, "obstacle", lambda: "left out, for speed")
        made = jetson.export_kit(
            checkpoint,
            "trt-bf16@jetson-orin",
            tmp_path_factory.mktemp("kits") / "tiny.kit",
            plugins="cpp",
            recording=shipped_sequence(600),
        )
    return made.path


def emulated(*command: object, **variables: str) -> str:
    done = tools.call([*EMULATOR.command, *command], env={**os.environ, **variables})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_example_program_answers_as_the_network(kit, checkpoint, tmp_path):
    """The kit's `c/example.c` against its library, both for a Jetson Orin, on a recording; the network in float64."""
    bundle = kit / "tiny.cpu.neuro"
    program = tmp_path / "example"
    source, made = bundle / "c" / "example.c", bundle / "libmodel.so"
    done = tools.call([CXX.replace("g++", "gcc"), "-std=c17", "-O2", "-Wall", source, made, "-o", program, "-lm"])
    assert (done.returncode, done.stderr) == (0, "")
    recording = tmp_path / "recording.bin"
    write_recording(recording, shipped_sequence(2500))
    lines = emulated(program, bundle, recording, LD_LIBRARY_PATH=str(bundle)).splitlines()
    opened = open_checkpoint(checkpoint)
    stream = opened.model.stream_program(opened.front_end, opened.labels)
    session = ScheduledSession(stream.spec, TorchExecutor(stream, torch.float64))
    events = read_recording(recording).events
    before = 0
    assert [int(line.split()[0]) for line in lines] == [1000, 2000, 2500]
    for line in lines:
        count, label, value = line.split()
        session.push(events[before : (before := int(count))])
        logits = session.readout()
        assert label == stream.spec.labels[int(np.argmax(logits))]
        assert float(value) == pytest.approx(float(np.max(logits)), rel=1e-4, abs=1e-5)


def test_plugins_compiled_for_the_board_list_themselves_and_launch(kit, tmp_path):
    """The kit's own script with a compiler for the board, and the answers of its library to TensorRT's questions."""
    bundle = open_bundle(kit / "tiny.neuro")
    out = tmp_path / "tiny.plugins"
    done = tools.call(
        ["bash", bundle.root / library.SCRIPT, "-o", out, *tools.HERE_ARE], env={**os.environ, "CXX": CXX}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / library.LIBRARY).read_bytes()[18:20] == b"\xb7\x00", "an ELF file for AArch64"
    host = tools.Host(tmp_path, (), (CXX,), EMULATOR.command)
    answers, _ = host(out / library.LIBRARY, "creators")
    assert [row["name"] for row in answers if "kind" in row] == bundle.manifest["target"]["plugin_names"]
    image, shapes = tools.chain(), ((2, 111, 7), (3, 3))
    made = tools.compile_library([image], tmp_path, "10.3", (CXX,))
    answers, asked = host(made, tools.request(image, shapes))
    outputs, workspace, launches = tools.expected(image, shapes)
    assert (answers[:2], answers[2]["workspace"]) == (outputs, workspace)
    assert [row for row in asked if row["call"] == "launch"] == launches * 2


def test_the_readme_names_the_plugins_and_sums_are_true(kit):
    readme = (kit / "README.md").read_text()
    names = open_bundle(kit / "tiny.neuro").manifest["target"]["plugin_names"]
    assert names
    assert f"| `tiny.neuro/plugins/` | {', '.join(f'`{name}`' for name in names)}: C++ that `build.sh`" in readme
    done = subprocess.run(["sha256sum", "--quiet", "--check", jetson.SUMS], cwd=kit, check=False)
    assert done.returncode == 0
    assert sys.executable not in readme
