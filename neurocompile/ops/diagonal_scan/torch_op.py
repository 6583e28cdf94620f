"""`diagonal_scan` as one operator of torch, so that autograd, torch.compile and torch.export see a single node.

The operator `neurocompile::diagonal_scan` and its adjoint run on CUDA tensors through the Triton kernels where Triton
is installed, otherwise through the blocked scan, which is plain torch and runs anywhere.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from neurocompile.ops.diagonal_scan import blocked


@cache
def _triton_launch() -> ModuleType | None:
    if find_spec("triton") is None:
        return None
    from neurocompile.ops.diagonal_scan import triton_launch

    return triton_launch


def _face(tensor: Tensor) -> Any:
    return (_triton_launch() if tensor.is_cuda else None) or blocked


@torch.library.custom_op("neurocompile::diagonal_scan", mutates_args=())
def diagonal_scan_op(
    a_re: Tensor, a_im: Tensor, b_re: Tensor, b_im: Tensor, x0_re: Tensor, x0_im: Tensor
) -> tuple[Tensor, Tensor]:
    """States (B, T, P) of the recurrence; all six inputs are given, of any real types."""
    return _face(b_re).scan((a_re, a_im), (b_re, b_im), (x0_re, x0_im))


@torch.library.custom_op("neurocompile::diagonal_scan_gradients", mutates_args=())
def diagonal_scan_gradients_op(
    a_re: Tensor,
    a_im: Tensor,
    x_re: Tensor,
    x_im: Tensor,
    x0_re: Tensor,
    x0_im: Tensor,
    d_re: Tensor,
    d_im: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by `a_re, a_im, b_re, b_im, x0_re, x0_im`, given the states and the gradient by them."""
    return _face(d_re).gradients((a_re, a_im), (x_re, x_im), (x0_re, x0_im), (d_re, d_im))


@diagonal_scan_op.register_fake
def _(a_re: Tensor, a_im: Tensor, b_re: Tensor, b_im: Tensor, x0_re: Tensor, x0_im: Tensor) -> tuple[Tensor, Tensor]:
    dtype = blocked.state_dtype(a_re, a_im, b_re, b_im, x0_re, x0_im)
    return b_re.new_empty(b_re.shape, dtype=dtype), b_im.new_empty(b_im.shape, dtype=dtype)


@diagonal_scan_gradients_op.register_fake
def _(
    a_re: Tensor, a_im: Tensor, x_re: Tensor, x_im: Tensor, x0_re: Tensor, x0_im: Tensor, d_re: Tensor, d_im: Tensor
) -> tuple[Tensor, ...]:
    return tuple(x_re.new_empty(shape) for shape in [x_re.shape] * 4 + [x0_re.shape] * 2)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    a_re, a_im, _, _, x0_re, x0_im = inputs
    ctx.save_for_backward(a_re, a_im, *output, x0_re, x0_im)


def _backward(ctx: Any, d_re: Tensor, d_im: Tensor) -> tuple[Tensor, ...]:
    return diagonal_scan_gradients_op(*ctx.saved_tensors, d_re, d_im)


diagonal_scan_op.register_autograd(_backward, setup_context=_keep)
