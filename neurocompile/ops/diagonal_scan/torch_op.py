"""`diagonal_scan` as one operator of torch, so that autograd, torch.compile and torch.export see a single node.

`neurocompile::diagonal_scan` is what a captured program holds. It stands for `diagonal_scan_states`, which has a fake
kernel and, in `diagonal_scan_gradients`, an adjoint. Both run on CUDA tensors through Triton where that is
installed, otherwise through the blocked scan, which is plain torch and runs anywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neurocompile.ops.diagonal_scan import blocked
from neurocompile.ops.launches import triton_launch


def _face(tensor: Tensor) -> Any:
    return (triton_launch("diagonal_scan") if tensor.is_cuda else None) or blocked


torch.library.define(
    "neurocompile::diagonal_scan",
    "(Tensor a_re, Tensor a_im, Tensor b_re, Tensor b_im, Tensor x0_re, Tensor x0_im) -> (Tensor, Tensor)",
)


@torch.library.impl("neurocompile::diagonal_scan", "CompositeImplicitAutograd")
def _diagonal_scan(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    """One node of the ONNX graph if one is being made, else the states."""
    # Composite, so that the exporter comes by here also for a program that torch.export captured before.
    if torch.onnx.is_in_onnx_export():
        from neurocompile.ops.diagonal_scan.onnx_function import symbolic_node

        dtype = blocked.state_dtype(*inputs)
        return symbolic_node(*(value.to(dtype) for value in inputs))
    return diagonal_scan_states(*inputs)


@torch.library.custom_op("neurocompile::diagonal_scan_states", mutates_args=())
def diagonal_scan_states(
    a_re: Tensor, a_im: Tensor, b_re: Tensor, b_im: Tensor, x0_re: Tensor, x0_im: Tensor
) -> tuple[Tensor, Tensor]:
    """States (B, T, P) of the recurrence; the inputs may be of any real types."""
    return _face(b_re).scan((a_re, a_im), (b_re, b_im), (x0_re, x0_im))


@torch.library.custom_op("neurocompile::diagonal_scan_gradients", mutates_args=())
def diagonal_scan_gradients(
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


@diagonal_scan_states.register_fake
def _(a_re: Tensor, a_im: Tensor, b_re: Tensor, b_im: Tensor, x0_re: Tensor, x0_im: Tensor) -> tuple[Tensor, Tensor]:
    dtype = blocked.state_dtype(a_re, a_im, b_re, b_im, x0_re, x0_im)
    return b_re.new_empty(b_re.shape, dtype=dtype), b_im.new_empty(b_im.shape, dtype=dtype)


@diagonal_scan_gradients.register_fake
def _(
    a_re: Tensor, a_im: Tensor, x_re: Tensor, x_im: Tensor, x0_re: Tensor, x0_im: Tensor, d_re: Tensor, d_im: Tensor
) -> tuple[Tensor, ...]:
    return tuple(x_re.new_empty(shape) for shape in [x_re.shape] * 4 + [x0_re.shape] * 2)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    a_re, a_im, _, _, x0_re, x0_im = inputs
    ctx.save_for_backward(a_re, a_im, *output, x0_re, x0_im)


def _backward(ctx: Any, d_re: Tensor, d_im: Tensor) -> tuple[Tensor, ...]:
    return diagonal_scan_gradients(*ctx.saved_tensors, d_re, d_im)


diagonal_scan_states.register_autograd(_backward, setup_context=_keep)
