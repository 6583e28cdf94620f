"""`gated_linear_attention` as one operator of torch: one node for the ONNX exporter, matrix products for autograd.

On CUDA tensors the kernels of flash-linear-attention run where it is installed; otherwise the blocked form does, which
is plain torch and runs anywhere.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from neurocompile.ops.gated_linear_attention import blocked

torch.library.define(
    "neurocompile::gated_linear_attention",
    "(Tensor q, Tensor k, Tensor v, Tensor log_f, Tensor state) -> (Tensor, Tensor)",
)


def attend(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, H, E) result and (B, H, D, E) last state."""
    return torch.ops.neurocompile.gated_linear_attention(q, k, v, log_f, state)


@cache
def _flash() -> ModuleType | None:
    if find_spec("fla") is None:
        return None
    from neurocompile.ops.gated_linear_attention import flash

    return flash


@torch.library.impl("neurocompile::gated_linear_attention", "CompositeImplicitAutograd")
def _gated_linear_attention(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    """One node of the ONNX graph if one is being made, else the result."""
    # Composite, so that the exporter comes by here also for a program that torch.export captured before.
    if torch.onnx.is_in_onnx_export():
        from neurocompile.ops.gated_linear_attention.onnx_function import symbolic_node

        dtype = blocked.sum_dtype(*inputs)
        return symbolic_node(*(value.to(dtype) for value in inputs))
    if inputs[0].is_cuda and (flash := _flash()) and blocked.sum_dtype(*inputs) == torch.float32:
        return flash.attend(*inputs)
    return blocked.attend(*inputs)
