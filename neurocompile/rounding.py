"""The reference network in a lower precision: the yardstick for artefacts of that precision.

`rounded` is for artefacts that keep weights in it and compute in float32, `autocast` for those that compute in it, and
`eight_bit` for those whose products take operands of 8 bits. `operands` stands in for `autocast` where that leaves the
range of its numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from neurocompile.ops import OPS
from neurocompile.program import StreamProgram

LARGEST_INT8 = 127
GRAIN = 16
NOTHING = 1e-30
"""Stands for the largest of numbers that are all zero."""


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


def eight_bit(program: StreamProgram, dtype: str, low: str) -> StreamProgram:
    """`autocast`, with both operands of every weighted product rounded to 8 bits just before.

    Weights have a scale per output (int8) or one (fp8), inputs one that fits the largest of them at that moment, so
    nothing is ever cut off. Products of fewer than `GRAIN` inputs or outputs are computed as the rest.

    Args:
        program: The model's program; it is not changed.
        dtype: `int8` or `fp8`.
        low: `bf16` or `fp16`, for the rest.

    Returns:
        The program whose modules run so.
    """
    modules = autocast(program, low).modules
    return replace(
        program,
        modules={name: _Within(module, EightBitProducts(dtype, AUTOCAST[low])) for name, module in modules.items()},
    )


def operands(program: StreamProgram, dtype: str) -> StreamProgram:
    """The program with both operands of every product and convolution rounded just before, all else in float32.

    Args:
        program: The model's program; it is not changed.
        dtype: `bf16` or `fp16`.

    Returns:
        The program whose modules run so.
    """
    mode = RoundedOperands(AUTOCAST[dtype])
    return replace(program, modules={name: _Within(module, mode) for name, module in program.modules.items()})


class RoundedOperands(TorchFunctionMode):
    """Every product and convolution while it is active."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Rounds the first two operands of a product."""
        if function in PRODUCTS:
            args = (*(value.to(self._dtype).to(value.dtype) for value in args[:2]), *args[2:])
        return function(*args, **(kwargs or {}))


class _Within(nn.Module):
    def __init__(self, module: nn.Module, mode: TorchFunctionMode) -> None:
        super().__init__()
        self.module, self._mode = module, mode

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The module's results."""
        with self._mode:
            results: tuple[Tensor, ...] = self.module(*inputs)
        return results


class EightBitProducts(TorchFunctionMode):
    """Every `linear` while it is active."""

    def __init__(self, dtype: str, low: torch.dtype) -> None:
        super().__init__()
        self._dtype, self._low = dtype, low

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Rounds the operands of a product that is large enough."""
        if function is not functional.linear or min(args[1].shape) < GRAIN:
            return function(*args, **(kwargs or {}))
        given = [value.float() for value in (*args, *(kwargs or {}).values()) if value is not None]
        nearest = ROUNDING[self._dtype]
        with torch.autocast("cpu", enabled=False):
            made = functional.linear(nearest(given[0][None])[0], nearest(given[1]), *given[2:])
        return made.to(self._low)


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
    largest = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True).clamp(min=NOTHING)
    return (weight * (LARGEST_INT8 / largest)).round() * (largest / LARGEST_INT8)


def to_fp8(weight: Tensor) -> Tensor:
    """The nearest numbers of the format E4M3, times one scale that fits the largest."""
    scale = weight.abs().amax().clamp(min=NOTHING) / torch.finfo(torch.float8_e4m3fn).max
    return (weight / scale).to(torch.float8_e4m3fn).to(weight.dtype) * scale


FORWARD = ("diagonal_scan_states", "forgetting_attention_sums")
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {"bf16": to_bf16, "int8": to_int8, "fp8": to_fp8}
PRODUCTS = frozenset({functional.linear, functional.conv1d, torch.matmul, Tensor.matmul, Tensor.__matmul__})
