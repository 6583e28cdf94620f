"""Compiles the Triton kernels of `diagonal_scan` ahead of time, for chips that need not be here."""

from __future__ import annotations

import triton.language as tl

from neurocompile.ops.diagonal_scan import triton_kernel
from neurocompile.ops.diagonal_scan.triton_launch import TILE_COLUMNS, TILE_STEPS
from neurocompile.ops.machine_code import OPERANDS, Compiled, assemble, resources

__all__ = ["BACKWARD", "FORWARD", "OPERANDS", "Compiled", "compile_kernel", "resources"]

FORWARD = ("summary_kernel", "scan_kernel")
BACKWARD = ("summary_kernel_backwards", "gradient_kernel")

_OPERAND = ("a_", "b_", "d_", "x0_")


def compile_kernel(name: str, capability: int, operand: str, width: int, steps: int = 0) -> Compiled:
    """Compiles one kernel.

    Args:
        name: One of `FORWARD` or `BACKWARD`; a summary of the walk from the end is another constant of the same kernel.
        capability: 75 for compute capability 7.5, and so on.
        operand: One of `OPERANDS`, the type of decays, inputs and initial states; states are float32.
        width: Columns P; wider sequences run too.
        steps: Any; the kernels take every number of steps.

    Returns:
        The machine code.

    Raises:
        ValueError: For bfloat16 on a chip without it.
    """
    backwards = name.endswith("_backwards")
    kernel = getattr(triton_kernel, name.removesuffix("_backwards"))
    columns = min(TILE_COLUMNS, 1 << max(width - 1, 0).bit_length())
    constants = {"BACKWARDS": backwards, "ACC": tl.float32, "TILE_STEPS": TILE_STEPS, "TILE_COLUMNS": columns}
    types = {key: f"*{operand if key.startswith(_OPERAND) else 'fp32'}" for key in kernel.arg_names}
    types |= dict.fromkeys(("steps", "width", "chunks", "tiles"), "i32")
    return assemble(kernel, types, constants, capability, warps=4, stages=3)
