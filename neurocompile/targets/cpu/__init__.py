"""Target `cpu`: the stages as one C library with a stable interface, plus its weights."""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from neurocompile.calibration import Calibration
from neurocompile.graph_program import GraphProgram
from neurocompile.lowering import LoopProgram, lower
from neurocompile.lowering.jobs import delay, find_jobs
from neurocompile.passes.compensate import compensate
from neurocompile.passes.report import Change
from neurocompile.targets import Artefact, Availability, StandIn, TargetSpec
from neurocompile.targets.cpu.code.products import Shape
from neurocompile.targets.cpu.code.program import program_code
from neurocompile.targets.cpu.code.rows import widest_panel
from neurocompile.targets.cpu.placement.formats import FORMATS, Format
from neurocompile.targets.cpu.placement.layout import identity, lay_out
from neurocompile.targets.cpu.placement.pairs import compensate_pairs
from neurocompile.targets.cpu.toolchains.compiler import INSTALL, Compiler, system_compiler, zig_compiler
from neurocompile.targets.cpu.toolchains.devices import (
    DEVICES,
    SOURCE,
    SOURCE_SHAPE,
    Toolchain,
    format_of,
    shape_of,
    toolchain,
)
from neurocompile.targets.cpu.toolchains.emulation import EmulatedSession, find_emulator
from neurocompile.targets.cpu.toolchains.features import architecture_of, features_of
from runtime import machine
from runtime.errors import UserError
from runtime.program import ProgramSpec

PARTS = Path(__file__).with_name("csrc")
INCLUDE = '#include "neurocompile.h"\n'
SUFFIX = {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so")


def build(program: GraphProgram, target: TargetSpec, calibration: Calibration | None = None) -> Artefact:
    """Generates and compiles the library.

    Args:
        program: The program after the passes.
        target: `cpu-fp32`, `cpu-bf16` or `cpu-int8` with any device.
        calibration: Of the program, for `cpu-bf16` and `cpu-int8`: weights are then rounded so that results change
            least, otherwise each to the nearest number.

    Returns:
        The library, its weights, the C source and header, and an example program; no library for device `source`.

    Raises:
        UserError: If there is no compiler, the device is unknown, or a stage has no loop form.
    """
    tools = toolchain(target.device)
    compiler, flags = tools.compiler, tools.flags
    macros = compiler.macros(flags)
    ships_source = target.device == SOURCE
    shape = SOURCE_SHAPE if ships_source else shape_of(compiler, flags, target.dtype)
    form = FORMATS[target.dtype] if ships_source else format_of(target.dtype, macros)
    needs: dict[str, Any] = {} if ships_source else _needs(target.device, macros)
    changes: list[Change] = []
    left_out = calibration.left_out(program.spec, program.graphs) if calibration else []
    if calibration and form.name == "int8":
        program, changes = compensate(program, calibration)
    loops = lower(program)
    if calibration and form.name == "bf16":
        loops, changes = compensate_pairs(loops, program, calibration)
    source, sealed = generate(program.spec, loops, shape, form, fixed_lanes=ships_source, smooth=target.smooth)
    name = f"libmodel.{'so' if needs.get('system') == 'Linux' else SUFFIX}"
    library = {} if ships_source else {name: compile_library(source, compiler, flags, name)}
    files = {
        **library,
        "model.weights": sealed,
        "c/model.c": source.encode(),
        "c/neurocompile.h": (PARTS / "neurocompile.h").read_bytes(),
        **({"c/clusters.h": (PARTS / "clusters.h").read_bytes()} if _clusters(program.spec) else {}),
        "c/example.c": (PARTS / "example.c").read_bytes(),
    }
    report = _report(program, loops, form, tools, files)
    if calibration:
        rounded = [f"[{change.stage}] {change.what}" for change in changes]
        report["calibration"] = {**calibration.report, "rounded": rounded, "nearest": left_out}
    if target.smooth:
        report["delay_items"] = delay(program.spec, find_jobs(program.spec, loops))
    if ships_source:
        return Artefact(files, {}, report, proxy=f"compiled here by {compiler.version()}")
    obstacle, stand_in = machine.obstacle(target.device, **needs) or "", None
    if obstacle:
        emulator = find_emulator(needs["architecture"], target.device)
        if isinstance(emulator, str):
            obstacle = f"{obstacle}, and {emulator}"
        else:
            stand_in = StandIn(
                emulator.name, lambda tick_us: EmulatedSession(program.spec, files, tools, emulator, tick_us)
            )
    return Artefact(files, {}, report, needs=needs, obstacle=obstacle, stand_in=stand_in)


def _needs(device: str, macros: frozenset[str]) -> dict[str, Any]:
    """What the machine that runs the library must be; devices with a name of their own run Linux."""
    system = platform.system() if device == "native" else "Linux"
    return {"architecture": architecture_of(macros), "system": system, "features": features_of(macros)}


def generate(
    spec: ProgramSpec,
    loops: LoopProgram,
    shape: Shape,
    form: Format,
    *,
    fixed_lanes: bool = False,
    smooth: bool = False,
) -> tuple[str, bytes]:
    """The library's source in one file, and the weights that belong to it.

    Args:
        spec: The tables.
        loops: The loops.
        shape: How matrices are cut.
        form: How matrices and tables are kept.
        fixed_lanes: Whether every compiler is to take vectors of that shape, instead of only one that agrees.
        smooth: Whether stages that fire rarely are spread over the items that follow.

    Returns:
        (C text, bytes of `model.weights`).
    """
    weights = lay_out(loops, shape.widest, form, widest_panel(shape))
    body = program_code(spec, loops, weights, shape, form, smooth=smooth)
    who = identity(body.encode(), weights.data)
    bytes_of_identity = ", ".join(str(byte) for byte in who)
    parts = [
        "#define _DEFAULT_SOURCE /* madvise */",
        "/* Generated by neurocompile; compile with cc -O3 -ffp-contract=fast -shared -fPIC, do not edit. */",
        '#define NC_API __attribute__((visibility("default")))',
        *([f"#define NC_LANES {shape.lanes}"] if fixed_lanes else []),
        *((PARTS / name).read_text() for name in ("neurocompile.h", "processor.c", "vector.c", "mathematics.c")),
        f"static const unsigned char nc_program_id[32] = {{{bytes_of_identity}}};",
        body,
        (PARTS / "session.c").read_text(),
        (PARTS / f"{spec.front_end['kind']}.c").read_text(),
        *((PARTS / f"clusters.{part}").read_text().replace(INCLUDE, "") for part in "hc" if _clusters(spec)),
    ]
    return "\n".join(parts), weights.sealed(who)


def _clusters(spec: ProgramSpec) -> bool:
    """Whether events have intensities."""
    return bool(spec.front_end.get("intensity"))


def compile_library(source: str, compiler: Compiler, flags: tuple[str, ...], name: str = f"libmodel.{SUFFIX}") -> bytes:
    """The bytes of the shared library."""
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder) / "model.c", Path(folder) / name
        path.write_text(source)
        compiler.library(path, output, flags)
        return output.read_bytes()


def availability() -> Availability:
    """A compiler builds it; running takes nothing but the library."""
    return Availability(build="" if system_compiler() or zig_compiler() else f"no C compiler: {INSTALL}")


def by_device() -> dict[str, Availability]:
    """Every device but `native`: whether something here compiles for it, and whether or in what it runs here."""
    return {device: _can(device) for device in DEVICES if device != "native"}


def _can(device: str) -> Availability:
    try:
        tools = toolchain(device)
    except UserError as error:
        return Availability(build=str(error), run="-")
    if device == SOURCE:
        return Availability()
    needs = _needs(device, tools.compiler.macros(tools.flags))
    reason = machine.obstacle(device, **needs) or ""
    if reason and not isinstance(emulator := find_emulator(needs["architecture"], device), str):
        reason = f"only in {emulator.name}"
    return Availability(run=reason)


def refuse(target: TargetSpec) -> None:
    """Raises `UserError` if the device is unknown or nothing here compiles for it."""
    toolchain(target.device)


def _report(
    program: GraphProgram,
    loops: LoopProgram,
    form: Format,
    tools: Toolchain,
    files: dict[str, bytes],
) -> dict[str, Any]:
    products, elements = loops.multiply_adds, loops.matrix_elements
    stages = {
        name: {
            "nodes": len(program.graphs[name].graph),
            "loops": len(stage.statements),
            "multiply_adds": products[name],
            "bytes": elements[name] * form.step_bytes // form.group,
        }
        for name, stage in loops.stages.items()
    }
    return {
        "compiler": tools.compiler.version(),
        "flags": list(tools.flags),
        **({"why_this_compiler": tools.note} if tools.note else {}),
        "library_bytes": sum(len(data) for name, data in files.items() if name.startswith("libmodel.")),
        "weights_bytes": len(files["model.weights"]),
        "stages": stages,
    }
