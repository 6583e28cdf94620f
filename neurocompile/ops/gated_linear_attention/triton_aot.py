"""Compiles the Triton kernel of `gated_linear_attention` ahead of time, for chips that need not be here."""

from __future__ import annotations

from neurocompile.ops.gated_linear_attention import triton_kernel
from neurocompile.ops.gated_linear_attention.triton_blocks import constants, plan
from neurocompile.ops.machine_code import OPERANDS, Compiled, assemble, resources

__all__ = ["FORWARD", "OPERANDS", "Compiled", "compile_kernel", "resources"]

FORWARD = ("attention_kernel",)
BACKWARD = ("attention_kernel_backwards",)

_OPERAND = ("q_ptr", "k_ptr", "v_ptr")


def compile_kernel(
    name: str, capability: int, operand: str, width: int, steps: int = 4096, *, out: int | None = None
) -> Compiled:
    """Compiles one kernel.

    Args:
        name: One of `FORWARD` or `BACKWARD`; the latter is the same kernel walking from the end.
        capability: 75 for compute capability 7.5, and so on.
        operand: One of `OPERANDS`, the type of q, k and v; gates, states and results are float32.
        width: Channels D of a key.
        steps: The longest sequence that is meant. Others run too; one of a few steps is faster if it is meant.
        out: Channels E of a value, `width` if `None`.

    Returns:
        The machine code.

    Raises:
        ValueError: For bfloat16 on a chip without it.
    """
    kernel, out = triton_kernel.attention_kernel, out or width
    blocks = plan(capability, width, OPERANDS[operand])
    values = constants(blocks, capability, OPERANDS[operand], width, out, steps, name in BACKWARD)
    pointers = {key: f"*{operand if key in _OPERAND else 'fp32'}" for key in kernel.arg_names if key.endswith("_ptr")}
    types = dict.fromkeys(("steps", "heads", "key_heads"), "i32") | pointers
    return assemble(kernel, types, values, capability, blocks.warps, blocks.stages)
