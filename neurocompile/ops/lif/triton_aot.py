"""Compiles the Triton kernels of `lif` ahead of time, for chips that need not be here."""

from __future__ import annotations

from typing import Any

import triton.language as tl

from neurocompile.ops.lif import triton_kernel
from neurocompile.ops.lif.neuron import Neuron
from neurocompile.ops.lif.triton_launch import WARPS, block_of, constants
from neurocompile.ops.machine_code import OPERANDS, Compiled, assemble, resources

__all__ = ["BACKWARD", "FORWARD", "OPERANDS", "Compiled", "compile_kernel", "resources"]

FORWARD = ("forward_kernel",)
BACKWARD = ("gradient_kernel",)

DECAYS = {"one": (1, 1), "neuron": (1, 2), "step": (2, 2)}
"""What a decay may vary with, and a shape that does."""

_OPERAND = ("x_ptr", "spikes_ptr", "d_spikes_ptr", "d_x_ptr")


def compile_kernel(
    name: str,
    capability: int,
    operand: str,
    width: int,
    steps: int = 0,
    *,
    neuron: Neuron | None = None,
    decay: str = "one",
    keep: bool = False,
) -> Compiled:
    """Compiles one kernel.

    Args:
        name: One of `FORWARD` or `BACKWARD`.
        capability: 75 for compute capability 7.5, and so on.
        operand: One of `OPERANDS`, the type of inputs and spikes; decays and membranes are float32.
        width: Neurons of the layer, from which the block size follows; other layers run too.
        steps: Any; the kernels take every number of steps.
        neuron: Threshold, reset, comparison and surrogate; `Neuron()` if `None`.
        decay: One of `DECAYS`.
        keep: Whether the forward kernel writes what the backward one reads, as a last argument.

    Returns:
        The machine code.

    Raises:
        ValueError: For bfloat16 on a chip without it.
    """
    kernel, block = getattr(triton_kernel, name), block_of(width)
    values: dict[str, Any] = constants(neuron or Neuron(), DECAYS[decay], tl.float32, block) | {"KEEP": keep}
    if not keep and name in FORWARD:
        values["membranes_ptr"] = None
    pointers = {key: f"*{operand if key in _OPERAND else 'fp32'}" for key in kernel.arg_names if key.endswith("_ptr")}
    types = dict.fromkeys(("steps", "neurons"), "i32") | pointers
    # Products and sums stay apart, so that membranes are those of every other target.
    return assemble(kernel, types, values, capability, min(WARPS, block // 32), 1, fuse=False)
