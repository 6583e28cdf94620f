"""The reference network with its weights in a lower precision: the yardstick for artefacts that keep them so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from neurocompile.program import StreamProgram

LARGEST_INT8 = 127


def rounded(program: StreamProgram, dtype: str) -> StreamProgram:
    """The program with every weight matrix rounded; vectors, states and arithmetic stay as they are.

    Args:
        program: The model's program; it is not changed.
        dtype: `fp32` (nothing is rounded), `bf16`, or `int8` with one scale per output.

    Returns:
        The rounded program.
    """
    if dtype == "fp32":
        return program
    modules = {name: copy.deepcopy(module) for name, module in program.modules.items()}
    with torch.no_grad():
        for module in modules.values():
            for parameter in module.parameters():
                if sum(size > 1 for size in parameter.shape) >= 2:
                    parameter.copy_(ROUNDING[dtype](parameter))
    return replace(program, modules=modules)


def to_bf16(weight: Tensor) -> Tensor:
    """The nearest bfloat16."""
    return weight.bfloat16().to(weight.dtype)


def to_int8(weight: Tensor) -> Tensor:
    """The nearest of 255 evenly spaced numbers per slice of the first axis."""
    largest = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight * (LARGEST_INT8 / largest)).round() * (largest / LARGEST_INT8)


ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {"bf16": to_bf16, "int8": to_int8}
