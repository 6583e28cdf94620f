"""Devices of the compiled target: who compiles for them, what they need, what is refused, sessions through pipes."""

from __future__ import annotations

import ctypes
import platform
import re
from dataclasses import replace

import numpy as np
import pytest

from neurocompile.parity import prove
from neurocompile.targets import TargetSpec, cpu
from neurocompile.targets.cpu.placement.formats import FORMATS, QUADS
from neurocompile.targets.cpu.toolchains import devices, emulation, features
from neurocompile.targets.cpu.toolchains.compiler import Compiler, find_compiler, system_compiler, zig_compiler
from neurocompile.targets.cpu.toolchains.devices import DEVICES, GLIBC, format_of, shape_of, toolchain
from neurocompile.targets.cpu.toolchains.emulation import EmulatedSession, Emulator, find_emulator
from runtime import machine
from runtime.backends.native import NativeModel, NativeSession
from runtime.errors import InternalError, UserError
from runtime.events import Recording

LINUX_X86 = platform.machine() == "x86_64" and platform.system() == "Linux"
pytestmark = pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")
needs_zig = pytest.mark.skipif(zig_compiler() is None, reason="ziglang is not installed: the extra `cross` brings it")
HERE = Emulator((), "this machine")
NETWORK = "two_stages"


@pytest.fixture
def compilers(monkeypatch):
    """Sets the system's compiler and ziglang's, each with the processor names that it knows."""

    class Fake(Compiler):
        known: tuple[str, ...] = ()

        def refusal(self, flags, source):
            name = flags[-1].partition("=")[2].replace("_", "-")
            return "" if name in self.known else f"bad value {name!r}"

    def make(name: str, crosses: bool, known: tuple[str, ...] | None):
        if known is None:
            return None
        kind = type("Known", (Fake,), {"known": known, "__hash__": Compiler.__hash__})
        return kind((name,), name, crosses)

    def use(system: tuple[str, ...] | None, zig: tuple[str, ...] | None) -> None:
        monkeypatch.setattr(devices, "system_compiler", lambda: make("cc", False, system))
        monkeypatch.setattr(devices, "zig_compiler", lambda: make("ziglang", True, zig))

    return use


def test_the_systems_compiler_is_taken_where_it_can(compilers):
    compilers(("neuroverse", "x86-64-v3", "cortex-a78ae"), ("x86-64-v3", "cortex-a78ae"))
    for device, flag in (("x86-64-v3", "-march=x86-64-v3"), ("jetson-orin", "-mcpu=cortex-a78ae")):
        tools = toolchain(device)
        assert (tools.compiler.name, tools.flags, tools.note) == ("cc", (flag,), "")


def test_ziglang_is_taken_where_the_system_cannot_and_says_why(compilers):
    compilers(("x86-64-v2",), ("cortex-a78ae", "x86-64-v4"))
    tools = toolchain("jetson-orin")
    assert tools.compiler.name == "ziglang"
    assert tools.flags == ("-target", f"aarch64-linux-gnu.{GLIBC}", "-mcpu=cortex_a78ae")
    assert tools.note == "cc cannot compile for cortex-a78ae (bad value 'cortex-a78ae')"
    assert toolchain("x86-64-v4").flags == ("-target", f"x86_64-linux-gnu.{GLIBC}", "-mcpu=x86_64_v4")


def test_an_older_processor_stands_in_for_one_that_no_compiler_knows(compilers):
    compilers(None, ("neoverse-v2", "neoverse-n2"))
    tools = toolchain("jetson-thor")
    assert tools.flags[-1] == "-mcpu=neoverse_v2"
    assert "cannot compile for neoverse-v3ae" in tools.note
    assert tools.note.endswith("jetson-thor is compiled as neoverse-v2")


def test_where_nothing_compiles_for_a_device_the_reason_and_the_remedy_are_said(compilers):
    compilers(("native",), None)
    with pytest.raises(UserError, match=r"nothing here compiles for jetson-orin: cc cannot .*neurocompile\[cross\]"):
        toolchain("jetson-orin")
    compilers(("native",), ())
    with pytest.raises(UserError, match="ziglang cannot compile for cortex-a78ae") as caught:
        toolchain("jetson-orin")
    assert "pip install" not in str(caught.value)
    compilers(None, None)
    with pytest.raises(UserError, match="no C compiler found"):
        toolchain("native")


def test_an_unknown_device_is_refused_before_any_work():
    with pytest.raises(UserError, match="device 'jetson-nano' is not built .* jetson-thor"):
        cpu.refuse(TargetSpec("cpu", "fp32", "jetson-nano"))
    assert set(cpu.by_device()) == set(DEVICES) - {"native"}


def test_a_compiler_is_judged_by_what_it_compiles():
    compiler = find_compiler()
    assert compiler.refusal((), "int f(void) { return 1; }\n") == ""
    assert "no_such_thing" in compiler.refusal((), "int f(void) { return no_such_thing; }\n")
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    assert "another processor" in compiler.refusal((), devices._probe(other))


def test_the_code_asks_for_every_feature_in_the_table():
    code = (cpu.PARTS / "processor.c").read_text()
    asked = set(re.findall(r"#ifdef (__\w+)", code))
    assert asked == set(features.X86_64) | set(features.AARCH64)


def test_features_are_read_from_macros():
    macros = frozenset({"__x86_64__", "__AVX2__", "__AVX512VNNI__", "__AES__", "__AMX_TILE__"})
    assert features.features_of(macros) == ["avx2", "avx512_vnni"]
    assert features.architecture_of(macros) == "x86_64"
    arm = frozenset({"__aarch64__", "__ARM_FEATURE_DOTPROD", "__ARM_FEATURE_SVE2", "__ARM_FEATURE_RNG"})
    assert features.features_of(arm) == ["asimddp", "sve2"]
    assert features.architecture_of(arm) == "aarch64"
    assert features.architecture_of(frozenset()) == ""


@pytest.mark.skipif(not LINUX_X86, reason="x86-64 under Linux only")
def test_the_features_of_native_code_are_this_machines():
    tools = toolchain("native")
    found = features.features_of(tools.compiler.macros(tools.flags))
    assert "sse4_2" in found and set(found) <= machine.cpu_features()


@pytest.mark.skipif(not LINUX_X86, reason="x86-64 under Linux only")
@pytest.mark.parametrize(("pretended", "fits"), [((), 1), (("__XOP__", "__TBM__"), 0), (("__FMA4__",), 0)])
def test_the_processor_is_asked(pretended, fits, tmp_path):
    """No processor has had AMD's XOP, TBM and FMA4 since 2017."""
    if {features.X86_64[name] for name in pretended} & machine.cpu_features():
        pytest.skip("this processor has what none should have")
    source = tmp_path / "p.c"
    defines = "".join(f"#undef {name}\n#define {name} 1\n" for name in pretended)
    part = (cpu.PARTS / "processor.c").read_text()
    source.write_text(f"{defines}{part}\nint fits(void) {{ return nc_processor_fits(); }}\n")
    find_compiler().run("-march=native", "-O2", "-shared", "-fPIC", str(source), "-o", str(tmp_path / "p.so"))
    assert ctypes.CDLL(str(tmp_path / "p.so")).fits() == fits


@pytest.mark.skipif(not LINUX_X86, reason="x86-64 under Linux only")
def test_a_library_for_another_processor_refuses_by_itself(compiled, tmp_path, monkeypatch):
    """The whole library, with one more requirement than this processor meets; no other check stands before it."""
    graphs = compiled(NETWORK)
    wanted = "#define __XOP__ 1\n"
    if "xop" in machine.cpu_features():
        pytest.skip("this processor has what none should have")
    original = cpu.compile_library
    monkeypatch.setattr(cpu, "compile_library", lambda source, *rest: original(wanted + source, *rest))
    artefact = cpu.build(graphs, TargetSpec("cpu", "fp32"))
    (tmp_path / "libmodel.so").write_bytes(artefact.files["libmodel.so"])
    with pytest.raises(UserError, match="this processor lacks instructions that the library was compiled for"):
        NativeModel(graphs.spec, tmp_path / "libmodel.so", artefact.files["model.weights"])


def test_the_manifest_gets_what_the_machine_must_have(compiled):
    needs = cpu.build(compiled(NETWORK), TargetSpec("cpu", "fp32")).needs
    assert needs["system"] == platform.system()
    assert needs["architecture"] == platform.machine()
    assert needs["features"] == sorted(needs["features"])
    assert machine.obstacle("native", **needs) is None


def test_products_are_cut_for_the_registers():
    class Fake(Compiler):
        def macros(self, flags):
            return frozenset(flags)

    compiler, arm = Fake(("cc",), "cc"), ("__aarch64__", "__ARM_NEON")
    dots = (*arm, "__ARM_FEATURE_DOTPROD")
    for flags, dtype, lanes, widest in (
        (("__x86_64__",), "int8", 4, 32),
        (("__x86_64__", "__AVX__"), "fp32", 8, 64),
        (("__x86_64__", "__AVX__", "__AVX512F__"), "fp32", 16, 128),
        (arm, "int8", 4, 64),
        (dots, "bf16", 4, 64),
        (dots, "int8", 4, 32),
    ):
        shape = shape_of(compiler, flags, dtype)
        assert (shape.lanes, shape.widest) == (lanes, widest)
    assert format_of("int8", frozenset(dots)) is QUADS
    assert format_of("int8", frozenset(arm)) is FORMATS["int8"]


@pytest.fixture(scope="module")
def artefact(compiled):
    return cpu.build(compiled(NETWORK), TargetSpec("cpu", "fp32"))


@pytest.fixture
def served(artefact, compiled):
    session = EmulatedSession(compiled(NETWORK).spec, artefact.files, toolchain("native"), HERE)
    yield session
    session.close()


def test_a_session_through_pipes_is_the_same_to_the_last_bit(served, artefact, compiled, stream, tmp_path):
    graphs = compiled(NETWORK)
    (tmp_path / "libmodel.so").write_bytes(artefact.files["libmodel.so"])
    model = NativeModel(graphs.spec, tmp_path / "libmodel.so", artefact.files["model.weights"])
    near, events = NativeSession(graphs.spec, model), stream(graphs, 300)

    def equal() -> None:
        assert served.items == near.items
        np.testing.assert_array_equal(served.readout(), near.readout())
        for state in graphs.spec.states:
            np.testing.assert_array_equal(served.state(state.name), near.state(state.name), err_msg=state.name)

    for session in (served, near):
        for t, x, y, p in zip(*(getattr(events[:40], name).tolist() for name in "txyp"), strict=True):
            session.push_event(t, x, y, p)
    equal()
    assert served.push(events[40:200]) == near.push(events[40:200])
    equal()
    for session in (served, near):
        session.settle()
    equal()
    before = served.snapshot()
    served.push(events[200:])
    served.restore(before)
    equal()
    for session in (served, near):
        session.reset()
    equal()


def test_a_library_that_refuses_or_dies_in_the_emulator_is_named(served, artefact, compiled):
    with pytest.raises(InternalError, match="refuses a call in the emulator with code -6"):
        served.push_event(0, 10_000, 0, True)
    served._process.kill()
    with pytest.raises(InternalError, match="stopped with code -9: it said nothing"):
        served.readout()
    broken = {**artefact.files, "model.weights": b"nothing"}
    with pytest.raises(InternalError, match="stopped with code 1: the weights are damaged"):
        EmulatedSession(compiled(NETWORK).spec, broken, toolchain("native"), HERE)


def test_why_there_is_no_emulator(monkeypatch, tmp_path):
    assert "no emulator is known for x86_64" in find_emulator("x86_64", "x86-64-v4")
    monkeypatch.setattr(emulation.shutil, "which", lambda name: None)
    assert "there is no qemu-aarch64 (Debian" in find_emulator("aarch64", "jetson-orin")
    monkeypatch.setattr(emulation.shutil, "which", lambda name: f"/none/{name}")
    monkeypatch.setattr(emulation, "LOADERS", {"aarch64": "no/such/loader"})
    assert "no C library for aarch64 (Debian: apt install libc6-arm64-cross" in find_emulator("aarch64", "jetson-orin")


def test_the_emulated_processor_is_the_devices_nearest(monkeypatch, tmp_path):
    said = {"help": "Available CPUs:\n  cortex-a53\n  max\n", "--version": "qemu-aarch64 version 7.2.22 (Debian)\n"}
    monkeypatch.setattr(emulation, "_output", lambda command: said[command[-1]])
    monkeypatch.setattr(emulation.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(emulation, "LOADERS", {"aarch64": "loader"})
    (tmp_path / "loader").write_text("")
    monkeypatch.setenv("QEMU_LD_PREFIX", str(tmp_path))
    for device, processor in (("aarch64", "cortex-a53"), ("jetson-orin", "max"), ("jetson-thor", "max,sve-max-vq=1")):
        emulator = find_emulator("aarch64", device)
        assert emulator.command == ("/bin/qemu-aarch64", "-L", str(tmp_path), "-cpu", processor)
        assert emulator.name == f"qemu-aarch64 7.2.22 -cpu {processor}"


def test_without_anything_to_run_it_parity_says_so_and_keeps_the_trace(program, stream):
    recording = Recording(stream(program(NETWORK), 700), 20, 1, 1.0, "made up")
    parity = prove(program(NETWORK), None, recording, "fp32")
    parity.require()
    assert parity.report["status"] == "not run" and "step" not in parity.report
    assert parity.report["bound"] == 1e-4 and parity.trace.marks[-1] == 700
    other = replace(program(NETWORK), offline=lambda items: np.ones(5))
    assert prove(other, None, recording, "fp32").report["status"] == "failed"


@needs_zig
@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 only")
def test_ziglang_builds_what_runs_here(compiled, program, monkeypatch, stream, tmp_path):
    """The first use on a machine makes ziglang build its C library, which takes twenty seconds."""
    monkeypatch.setattr(devices, "system_compiler", lambda: None)
    graphs = compiled(NETWORK)
    artefact = cpu.build(graphs, TargetSpec("cpu", "int8", "x86-64-v2"))
    assert artefact.report["compiler"].startswith("ziglang, clang")
    monkeypatch.undo()
    answers = []
    for files in (artefact.files, cpu.build(graphs, TargetSpec("cpu", "int8", "x86-64-v2")).files):
        path = tmp_path / f"{len(answers)}.so"
        path.write_bytes(files["libmodel.so"])
        session = NativeSession(graphs.spec, NativeModel(graphs.spec, path, files["model.weights"]))
        session.push(stream(graphs, 200))
        answers.append(session.readout())
    np.testing.assert_allclose(*answers, atol=1e-3)


@needs_zig
@pytest.mark.parametrize(
    "device", ["jetson-orin", *(pytest.param(name, marks=pytest.mark.slow) for name in ("aarch64", "jetson-thor"))]
)
def test_generated_code_compiles_for_aarch64_without_a_warning(device, compiled, tmp_path):
    from neurocompile.lowering import lower

    zig = zig_compiler()
    flags = devices._flags(DEVICES[device], DEVICES[device].names[0], zig)
    graphs = compiled(NETWORK)
    for dtype in FORMATS:
        form, shape = format_of(dtype, zig.macros(flags)), shape_of(zig, flags, dtype)
        source, _ = cpu.generate(graphs.spec, lower(graphs), shape, form)
        (tmp_path / "model.c").write_text(source)
        strict = ("-std=c17", "-O1", "-g0", "-Wall", "-Wextra", "-Werror", "-Wno-tautological-compare", "-c")
        zig.run(*strict, *flags, str(tmp_path / "model.c"), "-o", str(tmp_path / "model.o"))


def test_this_machine_has_a_compiler_for_itself():
    assert toolchain("native").compiler in (system_compiler(), zig_compiler())
