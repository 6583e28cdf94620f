"""Processors that code is generated for: compiler flags, and how matrices are cut for their registers."""

from __future__ import annotations

from neurocompile.targets.cpu.compiler import Compiler
from neurocompile.targets.cpu.product_code import Shape
from runtime.errors import UserError

SOURCE = "source"
"""No processor in particular: the bundle ships C, which the machine that runs it compiles."""

SOURCE_SHAPE = Shape(lanes=8, widest=64)

FLAGS: dict[str, tuple[str, ...]] = {
    "native": ("-march=native",),
    "source": (),
    "x86-64-v2": ("-march=x86-64-v2",),
    "x86-64-v3": ("-march=x86-64-v3",),
    "x86-64-v4": ("-march=x86-64-v4",),
}


def flags_of(device: str) -> tuple[str, ...]:
    """Compiler flags of a device.

    Raises:
        UserError: If it is none of `FLAGS`.
    """
    if device not in FLAGS:
        raise UserError(f"device {device!r} is not built by this version; these are: {', '.join(FLAGS)}")
    return FLAGS[device]


def shape_of(compiler: Compiler, flags: tuple[str, ...]) -> Shape:
    """How to cut matrices for what the flags allow: a panel fills the registers, less a few for x and weights."""
    macros = compiler.macros(flags)
    if "__AVX512F__" in macros:
        return Shape(lanes=16, widest=128)
    if "__AVX__" in macros:
        return Shape(lanes=8, widest=64)
    return Shape(lanes=4, widest=32 if "__x86_64__" in macros else 64)
