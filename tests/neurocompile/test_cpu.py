"""The compiled target on event-ssm: golden networks, precisions, processors, the example program, sanitizers."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurocompile.lowering import lower
from neurocompile.reference import reference_session
from neurocompile.targets import TargetSpec, cpu, find_target
from neurocompile.targets.cpu.placement.formats import FORMATS, pair_words, quantise, to_bf16
from neurocompile.targets.cpu.toolchains.compiler import Compiler, find_compiler
from neurocompile.targets.cpu.toolchains.devices import shape_of, toolchain
from runtime.backends.native import NativeModel, NativeSession
from runtime.errors import InternalError, UserError
from runtime.events import Events

GOLDEN = [
    *("dvs_tiny", "shd_tiny", "ssc_small", "tiny_batch_one", "tiny_three_stages"),
    *(f"tiny_{rule}_{pool}" for rule in ("zoh", "dirac", "async") for pool in ("last", "avgpool", "timepool")),
]
OWN = ["two_stages", "batch_norm", "zoh_last", "post_norm", "stride_one"]
X86 = platform.machine() == "x86_64"
pytestmark = pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")


def write(artefact, folder: Path) -> Path:
    for name, data in artefact.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def open_folder(spec, folder: Path) -> NativeSession:
    model = NativeModel(spec, folder / "libmodel.so", (folder / "model.weights").read_bytes())
    return NativeSession(spec, model)


def random_events(spec, count: int, seed: int = 0) -> Events:
    """Events over the whole sensor, with pauses and simultaneous ones."""
    rng, front = np.random.default_rng(seed), spec.front_end
    t = np.cumsum(rng.choice([0, 1, 17, 250, 1000, 9000], count)).astype(np.int64)
    x, y = rng.integers(0, front["width"], count), rng.integers(0, front["height"], count)
    return Events(t, x, y, rng.random(count) < 0.5)


def assert_near(session, reference, tolerance: float) -> None:
    for name in (state.name for state in session.spec.states):
        wanted = reference.state(name)
        scale = max(float(np.abs(wanted).max()), 1e-3)
        np.testing.assert_allclose(session.state(name) / scale, wanted / scale, atol=tolerance, err_msg=name)
    wanted = reference.readout()
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(session.readout() / scale, wanted / scale, atol=tolerance)


@pytest.mark.parametrize("name", [*OWN, *(pytest.param(name, marks=pytest.mark.slow) for name in GOLDEN)])
def test_networks_equal_the_reference(name, program, compiled, tmp_path):
    graphs = compiled(name)
    session = open_folder(graphs.spec, write(cpu.build(graphs, TargetSpec("cpu", "fp32")), tmp_path))
    reference = reference_session(program(name))
    events = random_events(graphs.spec, 2 * graphs.spec.period + 40)
    for begin, end in ((0, 1), (1, 17), (17, len(events))):
        for one in (session, reference):
            one.push(events[begin:end])
        assert_near(session, reference, 1e-4)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.03), ("int8", 0.06)])
def test_lower_precisions_stay_near(name, dtype, tolerance, program, compiled, tmp_path):
    graphs = compiled(name)
    session = open_folder(graphs.spec, write(cpu.build(graphs, TargetSpec("cpu", dtype)), tmp_path))
    reference = reference_session(program(name))
    events = random_events(graphs.spec, graphs.spec.period * 2 + 5)
    for one in (session, reference):
        one.push(events)
    assert_near(session, reference, tolerance)


@pytest.mark.skipif(not X86, reason="x86-64 only")
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("device", ["x86-64-v2", "x86-64-v3"])
def test_other_instruction_sets_give_the_same_answer(device, dtype, compiled, tmp_path):
    graphs = compiled("batch_norm")
    events = random_events(graphs.spec, 100)
    answers = []
    for target in (TargetSpec("cpu", dtype), TargetSpec("cpu", dtype, device)):
        session = open_folder(graphs.spec, write(cpu.build(graphs, target), tmp_path / target.device))
        session.push(events)
        answers.append(session.readout())
    # 8-bit products round their input to 16 bits, and a last bit may fall to either side.
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-3 if dtype == "int8" else 2e-5, rtol=1e-4)


def test_targets_and_devices_are_found_by_name(compiled):
    assert str(find_target("cpu-int8@x86-64-v3")) == "cpu-int8@x86-64-v3"
    with pytest.raises(UserError, match="device 'pdp11' is not built"):
        cpu.build(compiled("two_stages"), TargetSpec("cpu", "fp32", "pdp11"))


def test_a_front_end_without_c_form_is_refused(compiled):
    graphs = compiled("two_stages")
    spec = replace(graphs.spec, front_end={"kind": "ring"})
    with pytest.raises(UserError, match="front end 'ring' has no C form"):
        cpu.generate(spec, lower(graphs), shape_of(find_compiler(), ("-march=native",)), FORMATS["fp32"])


def test_a_compiler_that_fails_is_our_fault_and_says_why(tmp_path):
    (tmp_path / "a.c").write_text("int main(void) { return no_such_thing; }")
    with pytest.raises(InternalError, match="no_such_thing"):
        find_compiler().library(tmp_path / "a.c", tmp_path / "a.so", ())


def test_generated_code_compiles_without_a_warning(compiled, tmp_path):
    for dtype in FORMATS:
        folder = write(cpu.build(compiled("zoh_last"), TargetSpec("cpu", dtype)), tmp_path / dtype)
        flags = ["-std=c17", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-march=native", "-fsyntax-only"]
        find_compiler().run(*flags, str(folder / "c" / "model.c"))


def test_the_header_serves_c99_and_cplusplus(tmp_path):
    header = cpu.PARTS / "neurocompile.h"
    for suffix, flags in ((".c", ["-std=c99", "-pedantic"]), (".cc", ["-x", "c++"])):
        source = tmp_path / f"use{suffix}"
        source.write_text(f'#include "{header}"\nint use(void) {{ return nc_push(0, 0, 0, 0, 0); }}\n')
        find_compiler().run(*flags, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", str(source))


@pytest.fixture(scope="module")
def example(compiled, tmp_path_factory):
    """(folder, spec) of a network with two classes of labels, and its recording."""
    graphs = compiled("two_stages")
    front = {**graphs.spec.front_end, "width": 20, "height": 1}
    spec = replace(graphs.spec, front_end=front, labels=tuple("abcde"))
    folder = write(cpu.build(replace(graphs, spec=spec), TargetSpec("cpu", "fp32")), tmp_path_factory.mktemp("example"))
    rng, rows = np.random.default_rng(0), np.zeros((2500, 5), np.uint8)
    t = np.cumsum(rng.integers(0, 300, 2500))
    rows[:, 0] = rng.integers(0, 20, 2500)
    rows[:, 2], rows[:, 3], rows[:, 4] = t >> 16 & 0x7F, t >> 8 & 0xFF, t & 0xFF
    (folder / "recording.bin").write_bytes(rows.tobytes())
    return folder, spec


def build_example(folder: Path, *flags: str, model: bool = False) -> Path:
    """Builds the example against the library, or together with the model's source."""
    program = folder / ("example_whole" if model else "example")
    sources = [str(folder / "c" / "example.c"), str(folder / "c" / "model.c" if model else folder / "libmodel.so")]
    find_compiler().run("-std=c17", "-Wno-psabi", *flags, *sources, "-o", str(program), "-lm")
    return program


def run_example(folder: Path, program: Path, *before: str) -> list[str]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    command = [*before, str(program), str(folder), str(folder / "recording.bin")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_example_program_prints_what_the_session_answers(example):
    from runtime.events.read import read_recording

    folder, spec = example
    lines = run_example(folder, build_example(folder, "-Wall", "-Wextra", "-Werror"))
    session = open_folder(spec, folder)
    events = read_recording(folder / "recording.bin").events
    wanted = []
    for begin, end in ((0, 1000), (1000, 2000), (2000, 2500)):
        session.push(events[begin:end])
        logits = session.readout()
        best = int(np.argmax(logits))
        wanted.append((str(end), spec.labels[best], float(logits[best])))
    found = [(n, label, float(value)) for n, label, value in (line.split() for line in lines)]
    assert [row[:2] for row in found] == [row[:2] for row in wanted]
    np.testing.assert_allclose([row[2] for row in found], [row[2] for row in wanted], rtol=1e-5)


def test_the_example_program_says_what_is_wrong(example, tmp_path):
    folder, _ = example
    program = build_example(folder)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    for arguments, code, message in (
        ([], 2, "usage"),
        ([str(tmp_path), str(folder / "recording.bin")], 1, "weights cannot be opened"),
        ([str(folder), str(tmp_path / "none.bin")], 1, "cannot be opened"),
    ):
        done = subprocess.run([str(program), *arguments], capture_output=True, text=True, env=environment)
        assert done.returncode == code and message in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_no_sanitizer_complains(example, compiled, tmp_path, dtype):
    folder, spec = example
    own = write(cpu.build(replace(compiled("two_stages"), spec=spec), TargetSpec("cpu", dtype)), tmp_path)
    shutil.copy(folder / "recording.bin", own)
    flags = ("-O1", "-g", "-march=native", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    assert len(run_example(own, build_example(own, *flags, model=True))) == 3


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("valgrind") or not X86, reason="no valgrind here")
def test_valgrind_finds_nothing(example, compiled, tmp_path):
    folder, spec = example
    target = TargetSpec("cpu", "fp32", "x86-64-v2")
    own = write(cpu.build(replace(compiled("two_stages"), spec=spec), target), tmp_path)
    shutil.copy(folder / "recording.bin", own)
    checker = ("valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=all")
    program = build_example(own, "-O1", "-g", *toolchain("x86-64-v2").flags, model=True)
    assert len(run_example(own, program, *checker)) == 3


def test_pairs_of_bfloat16_lose_no_more_than_bfloat16():
    rng = np.random.default_rng(0)
    block = (rng.normal(size=(64, 48)) * 10.0 ** rng.integers(-6, 3, (64, 48))).astype(np.float32)
    words = pair_words(block)
    low, high = (words << 16).view(np.float32), words.view(np.float32)
    for found, wanted in ((low, block[0::2]), (high, block[1::2])):
        assert (np.abs(found - wanted) <= np.abs(wanted) * 2.0**-8).all()
    np.testing.assert_array_equal(
        (to_bf16(np.float32([1, -2.5, 0])).astype(np.uint32) << 16).view(np.float32), [1, -2.5, 0]
    )
    assert not (np.abs(pair_words(np.zeros((4, 16), np.float32)).view(np.float32)) > 0).any()


def test_8_bits_have_a_scale_per_output_and_small_error():
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(100, 7)) * np.logspace(-3, 2, 7)).astype(np.float32)
    numbers, scales = quantise(matrix)
    error = np.sqrt(np.square(numbers * scales - matrix).mean(0) / np.square(matrix).mean(0))
    assert numbers.dtype == np.int8 and scales.shape == (7,) and (error < 0.01).all()
    zeros, _ = quantise(np.zeros((4, 3), np.float32))
    assert not zeros.any()


def test_cc_from_the_environment_is_taken(monkeypatch):
    from neurocompile.targets.cpu.toolchains import compiler

    compiler.system_compiler.cache_clear()
    monkeypatch.setenv("CC", "sh -c")
    assert compiler.system_compiler() == Compiler(("sh", "-c"), "sh")
    compiler.system_compiler.cache_clear()
