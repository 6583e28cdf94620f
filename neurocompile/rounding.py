"""The reference network in a lower precision: the yardstick for artefacts of that precision.

`rounded` is for artefacts that keep weights in it and compute in float32, `autocast` for those that compute in it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module

import torch
from torch import Tensor, nn

from neurocompile.ops import OPS
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


def autocast(program: StreamProgram, dtype: str) -> StreamProgram:
    """The program with PyTorch's automatic mixed precision: products and convolutions in `dtype`, states in float32.

    Args:
        program: The model's program; it is not changed.
        dtype: `fp32` (nothing changes), `bf16` or `fp16`.

    Returns:
        The program whose modules run under `torch.autocast`.
    """
    if dtype == "fp32":
        return program
    _ops_in_float32()
    modules = {name: _Autocast(module, AUTOCAST[dtype]) for name, module in program.modules.items()}
    return replace(program, modules=modules)


@cache
def _ops_in_float32() -> None:
    """Keeps our ops' own arithmetic out of automatic mixed precision, as a fused kernel keeps its sums."""
    for op in OPS:
        import_module(f"neurocompile.ops.{op}.torch_op")
    for name in FORWARD:
        torch.library.register_autocast(f"neurocompile::{name}", "cpu", torch.float32)


class _Autocast(nn.Module):
    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self._dtype = module, dtype

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The module's results, widened to float32."""
        with torch.autocast("cpu", self._dtype):
            results = self.module(*inputs)
        return tuple(result.float() if result.is_floating_point() else result for result in results)


def to_bf16(weight: Tensor) -> Tensor:
    """The nearest bfloat16."""
    return weight.bfloat16().to(weight.dtype)


def to_int8(weight: Tensor) -> Tensor:
    """The nearest of 255 evenly spaced numbers per slice of the first axis."""
    largest = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight * (LARGEST_INT8 / largest)).round() * (largest / LARGEST_INT8)


FORWARD = ("diagonal_scan_states", "forgetting_attention_sums")
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {"bf16": to_bf16, "int8": to_int8}
