"""Compiles the Triton kernels of `forgetting_attention` ahead of time, for chips that need not be here.

What comes out is machine code (cubin) for one compute capability with the block sizes of `triton_blocks.py`, the same
that a launch would compile, and what it needs of the chip.
"""

from __future__ import annotations

from typing import Any

import triton

from neurocompile.ops.forgetting_attention import triton_gradient, triton_kernel
from neurocompile.ops.forgetting_attention.triton_blocks import SEARCH, plan, span
from neurocompile.ops.machine_code import OPERANDS, Compiled, assemble, precision, resources

__all__ = ["BACKWARD", "FORWARD", "OPERANDS", "Compiled", "compile_kernel", "resources"]

FORWARD = ("size_kernel", "prefix_kernel", "forward_kernel")
BACKWARD = ("share_kernel", "query_kernel", "key_kernel", "gate_kernel")

# All other tensors are float32.
_OPERAND = ("q_ptr", "k_ptr", "v_ptr", "d_o_ptr", "d_q_ptr", "d_k_ptr", "d_v_ptr")


def compile_kernel(name: str, capability: int, operand: str, width: int, steps: int = 4096) -> Compiled:
    """Compiles one kernel.

    Args:
        name: One of `FORWARD` or `BACKWARD`.
        capability: 75 for compute capability 7.5, and so on.
        operand: One of `OPERANDS`; gates and sums are float32.
        width: Channels of a head.
        steps: The longest sequence that is meant; shorter ones run too, longer ones only from 1024 on.

    Returns:
        The machine code.

    Raises:
        ValueError: For bfloat16 on a chip without it.
    """
    chosen = plan(capability, width, OPERANDS[operand])
    blocks = chosen.key if name == "key_kernel" else chosen.query if name in BACKWARD else chosen.forward
    kernel = getattr(triton_gradient if name in BACKWARD else triton_kernel, name)
    constants: dict[str, Any] = {"WIDTH": width, "LANES": max(16, triton.next_power_of_2(width)), "SEARCH": SEARCH}
    constants |= {"QUERIES": blocks.queries, "KEYS": blocks.keys, "SPAN": span(steps, blocks.keys)}
    constants |= {"FIRST_QUERIES": chosen.query.queries, "FIRST_KEYS": chosen.query.keys}
    constants |= {"PRECISION": precision(capability, OPERANDS[operand])}
    types = {key: _type(key, operand) for key in kernel.arg_names}
    return assemble(kernel, types, constants, capability, blocks.warps, blocks.stages)


def _type(argument: str, operand: str) -> str:
    if argument.endswith("_ptr"):
        return "*i32" if argument == "first_ptr" else f"*{operand if argument in _OPERAND else 'fp32'}"
    return "fp32" if argument == "scale" else "i32"
