"""Processors that code is generated for: who compiles for them, with which flags, and how matrices are cut."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import lru_cache

from neurocompile.targets.cpu.code.products import Shape
from neurocompile.targets.cpu.placement.formats import EXCESS_QUADS, FORMATS, QUADS, Format
from neurocompile.targets.cpu.toolchains.compiler import INSTALL, Compiler, system_compiler, zig_compiler
from runtime.errors import UserError

SOURCE = "source"
"""No processor in particular: the bundle ships C, which the machine that runs it compiles."""

SOURCE_SHAPE = Shape(lanes=8, widest=64)

GLIBC = "2.28"
"""What `ziglang` links against: older than that of any JetPack (5: 2.31, 6: 2.35) and of any supported distribution."""


@dataclass(frozen=True)
class Device:
    """A processor, or a family of them.

    Attributes:
        architecture: As `platform.machine` has it; empty for the one at hand.
        names: What compilers call it, best first; a later name is an older processor whose code it runs as well.
    """

    architecture: str
    names: tuple[str, ...]


DEVICES = {
    "native": Device("", ("native",)),
    SOURCE: Device("", ()),
    "x86-64-v2": Device("x86_64", ("x86-64-v2",)),
    "x86-64-v3": Device("x86_64", ("x86-64-v3",)),
    "x86-64-v4": Device("x86_64", ("x86-64-v4",)),
    "aarch64": Device("aarch64", ("generic",)),
    # Cortex-A78AE: Armv8.2-A with dot products; the A76 has the same instructions.
    "jetson-orin": Device("aarch64", ("cortex-a78ae", "cortex-a76")),
    # Neoverse V3AE: Armv9.2-A, SVE2 of 128 bits; the V2 and N2 are Armv9.0-A.
    "jetson-thor": Device("aarch64", ("neoverse-v3ae", "neoverse-v3", "neoverse-v2", "neoverse-n2")),
}


@dataclass(frozen=True)
class Toolchain:
    """A compiler and the flags by which it compiles for a device.

    Attributes:
        compiler: The compiler.
        flags: Its flags.
        note: Why it is not the system's compiler, or not exactly the device's processor; empty if it is both.
    """

    compiler: Compiler
    flags: tuple[str, ...]
    note: str = ""


def toolchain(device: str) -> Toolchain:
    """Who compiles for a device: the system's compiler where it can, else `ziglang`; found out by compiling.

    Raises:
        UserError: If the device is unknown or no compiler here can.
    """
    known(device)
    return _toolchain(device, system_compiler(), zig_compiler())


def known(device: str) -> Device:
    """The device of a name.

    Raises:
        UserError: If it is none of `DEVICES`.
    """
    if device not in DEVICES:
        raise UserError(f"device {device!r} is not built by this version; these are: {', '.join(DEVICES)}")
    return DEVICES[device]


@lru_cache(maxsize=64)
def _toolchain(device: str, system: Compiler | None, zig: Compiler | None) -> Toolchain:
    refusals: list[str] = []
    for compiler in (compiler for compiler in (system, zig) if compiler):
        if not DEVICES[device].names:
            return Toolchain(compiler, ())
        own: list[str] = []
        for name in DEVICES[device].names:
            flags = _flags(DEVICES[device], name, compiler)
            refusal = compiler.refusal(flags, _probe(DEVICES[device].architecture))
            if not refusal:
                return Toolchain(compiler, flags, _note(device, name, [*refusals, *own]))
            own.append(f"{compiler.name} cannot compile for {name} ({refusal})")
        refusals.append(own[0])
    if not refusals:
        raise UserError(f"no C compiler found; {INSTALL}")
    remedy = "" if zig else "; pip install 'neurocompile[cross]' brings one that compiles for every device"
    raise UserError(f"nothing here compiles for {device}: {'; '.join(refusals)}{remedy}")


def _flags(device: Device, name: str, compiler: Compiler) -> tuple[str, ...]:
    if compiler.crosses:
        target = ("-target", f"{device.architecture}-linux-gnu.{GLIBC}") if device.architecture else ()
        return (*target, f"-mcpu={name.replace('-', '_')}")
    architecture = device.architecture or platform.machine()
    return (f"-{'mcpu' if architecture in ('aarch64', 'arm64') else 'march'}={name}",)


def _note(device: str, name: str, refusals: list[str]) -> str:
    instead = f"{device} is compiled as {name}" if name != DEVICES[device].names[0] else ""
    return "; ".join([*refusals, *([instead] if instead else [])])


def _probe(architecture: str) -> str:
    """A library with a bit of everything that generated code uses, for Linux on this architecture."""
    wanted = f"#if !defined(__{architecture}__) || !defined(__linux__)\n#error another processor\n#endif\n"
    return (
        (wanted if architecture else "")
        + "#include <math.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <stdlib.h>\n"
        + "typedef float v __attribute__((vector_size(16)));\n"
        + 'float f(float x, v y) { return sinf(x) + y[0] + (fopen("a", "r") != 0); }\n'
    )


def shape_of(compiler: Compiler, flags: tuple[str, ...], dtype: str = "fp32") -> Shape:
    """How to cut matrices for what the flags allow: a panel fills the registers, less a few for x and weights."""
    macros = compiler.macros(flags)
    if "__AVX512F__" in macros:
        return Shape(lanes=16, widest=128)
    if "__AVX__" in macros:
        return Shape(lanes=8, widest=64)
    if "__x86_64__" in macros:
        return Shape(lanes=4, widest=32)
    # 32 registers of 128 bits; products of quads keep two sums for every output.
    return Shape(lanes=4, widest=32 if format_of(dtype, macros) is QUADS else 64)


def format_of(dtype: str, macros: frozenset[str]) -> Format:
    """How numbers are kept in this precision on a processor with these instructions."""
    if dtype == "int8" and "__ARM_FEATURE_DOTPROD" in macros:
        return QUADS
    return EXCESS_QUADS if dtype == "int8" and "__AVX512VNNI__" in macros else FORMATS[dtype]
