"""Libraries for other processors, executed: aarch64 in QEMU, every level of x86-64 that this machine has."""

from __future__ import annotations

import platform
import shutil

import numpy as np
import pytest
import torch

from models.event2vec import Event2Vec, Event2VecConfig
from neurocompile.capture import capture
from neurocompile.lowering import lower
from neurocompile.parity import prove
from neurocompile.passes import run_passes
from neurocompile.targets import TargetSpec, cpu
from neurocompile.targets.cpu.toolchains import devices
from neurocompile.targets.cpu.toolchains.compiler import Compiler, zig_compiler
from neurocompile.targets.cpu.toolchains.devices import DEVICES, format_of, shape_of, toolchain
from neurocompile.targets.cpu.toolchains.emulation import EmulatedSession, find_emulator
from runtime import machine
from runtime.backends.native import NativeModel, NativeSession
from runtime.errors import InternalError
from runtime.events import Events, Recording
from runtime.front_ends import Window

EMULATOR = find_emulator("aarch64", "jetson-orin")
DTYPES = ("fp32", "bf16", "int8")
BOARDS = ("aarch64", "jetson-orin", "jetson-thor")
NETWORKS = ("two_stages", "batch_norm", "zoh_last", "post_norm")
GOLDEN = ("dvs_tiny", "shd_tiny")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler"),
]
emulated = [
    pytest.mark.skipif(zig_compiler() is None, reason="ziglang is not installed: the extra `cross` brings it"),
    pytest.mark.skipif(isinstance(EMULATOR, str), reason=str(EMULATOR)),
    pytest.mark.skipif(platform.machine() == "aarch64", reason="this machine is an aarch64 itself"),
]


def proof_of(name, target, program, compiled, stream):
    """The parity report of a network's artefact for a device, and what ran it."""
    graphs = compiled(name)
    artefact = cpu.build(graphs, target)
    recording = Recording(stream(graphs, 1200), graphs.spec.front_end["width"], 1, 1.0, "made up")
    assert artefact.stand_in is not None
    parity = prove(program(name), artefact.stand_in.open, recording, target.dtype)
    parity.require()
    print(f"{target} {name}: worst {parity.report['step']['worst_relative']:.1e}, bound {parity.report['bound']:.1e}")
    return parity.report, artefact


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", BOARDS)
@pytest.mark.parametrize("name", NETWORKS)
class TestEmulated:
    pytestmark = emulated

    def test_parity_in_the_emulator(self, name, device, dtype, program, compiled, stream):
        report, artefact = proof_of(name, TargetSpec("cpu", dtype, device), program, compiled, stream)
        assert report["status"] == "proved" and report["reset"]["identical"]
        assert artefact.stand_in.name.startswith("qemu-aarch64 ")
        assert artefact.obstacle.startswith(f"it was built for {device}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GOLDEN)
class TestPublishedNetworks:
    pytestmark = emulated

    def test_parity_in_the_emulator(self, name, dtype, program, compiled, stream):
        report, _ = proof_of(name, TargetSpec("cpu", dtype, "jetson-orin"), program, compiled, stream)
        assert report["status"] == "proved"


class TestWindows:
    pytestmark = emulated

    @pytest.mark.parametrize("dtype", ["fp32", "bf16"])
    @pytest.mark.parametrize("device", BOARDS)
    def test_parity_in_the_emulator(self, device, dtype):
        sizes = {"polarities": 2, "height": 9, "width": 13, "num_classes": 3}
        config = Event2VecConfig(**sizes, d_model=16, d_feedforward=24, nheads=4, n_layers=2)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            program = Event2Vec(config).eval().stream_program(Window(13, 9, 111, 7), ("a", "b", "c"))
        rng = np.random.default_rng(0)
        t = 1_000_000 + np.cumsum(rng.choice([1, 30, 700], 400))
        events = Events(t, rng.integers(0, 13, 400), rng.integers(0, 9, 400), rng.random(400) < 0.5)
        artefact = cpu.build(run_passes(capture(program))[0], TargetSpec("cpu", dtype, device))
        parity = prove(program, artefact.stand_in.open, Recording(events, 13, 9, 1.0, "made up"), dtype)
        parity.require()
        step = parity.report["step"]
        print(f"cpu-{dtype}@{device} window: worst {step['worst_relative']:.1e}, bound {parity.report['bound']:.1e}")


@pytest.mark.parametrize("crossing", ["ziglang", "aarch64-linux-gnu-gcc"])
def test_dot_products_become_instructions(crossing, compiled, tmp_path):
    """Under GCC too, which forgets its macros after some attributes."""
    compiler = zig_compiler() if crossing == "ziglang" else Compiler((crossing,), crossing)
    if compiler is None or not shutil.which(compiler.command[0]):
        pytest.skip(f"{crossing} is not installed")
    flags = devices._flags(DEVICES["jetson-orin"], "cortex-a78ae", compiler)
    graphs, form = compiled("two_stages"), format_of("int8", compiler.macros(flags))
    source, _ = cpu.generate(graphs.spec, lower(graphs), shape_of(compiler, flags, "int8"), form)
    (tmp_path / "model.c").write_text(source)
    compiler.run("-O2", "-g0", "-std=c17", "-S", *flags, str(tmp_path / "model.c"), "-o", str(tmp_path / "model.s"))
    assert (tmp_path / "model.s").read_bytes().count(b"sdot\t") > 20


class TestRefusals:
    pytestmark = emulated

    @pytest.mark.parametrize("device", ["jetson-orin", "jetson-thor"])
    def test_an_older_processor_is_refused_by_the_library(self, device, compiled):
        graphs = compiled("two_stages")
        artefact = cpu.build(graphs, TargetSpec("cpu", "fp32", device))
        oldest = find_emulator("aarch64", "aarch64")
        with pytest.raises(InternalError, match="this processor lacks instructions that the library was compiled for"):
            EmulatedSession(graphs.spec, artefact.files, toolchain(device), oldest)

    def test_the_a76_has_what_the_a78ae_has(self, compiled):
        graphs = compiled("two_stages")
        artefact = cpu.build(graphs, TargetSpec("cpu", "int8", "jetson-orin"))
        assert {"asimddp", "atomics", "fphp"} <= set(artefact.needs["features"])
        assert not {"sve", "bf16", "i8mm"} & set(artefact.needs["features"])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 only")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("crossing", [False, True], ids=["cc", "ziglang"])
def test_levels_of_x86_64_run_here(device, dtype, crossing, program, compiled, stream, monkeypatch, tmp_path):
    if crossing and zig_compiler() is None:
        pytest.skip("ziglang is not installed: the extra `cross` brings it")
    if crossing:
        monkeypatch.setattr("neurocompile.targets.cpu.toolchains.devices.system_compiler", lambda: None)
    graphs = compiled("batch_norm")
    artefact = cpu.build(graphs, TargetSpec("cpu", dtype, device))
    if reason := machine.obstacle(device, **artefact.needs):
        pytest.skip(reason)
    (tmp_path / "libmodel.so").write_bytes(artefact.files["libmodel.so"])
    model = NativeModel(graphs.spec, tmp_path / "libmodel.so", artefact.files["model.weights"])
    recording = Recording(stream(graphs, 1200), graphs.spec.front_end["width"], 1, 1.0, "made up")
    parity = prove(
        program("batch_norm"), lambda tick: NativeSession(graphs.spec, model, tick_us=tick), recording, dtype
    )
    parity.require()
    assert artefact.report["compiler"].startswith("ziglang") == crossing
