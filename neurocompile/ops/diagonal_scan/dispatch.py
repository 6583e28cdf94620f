"""The function that models call: checks its inputs and hands them to the operator `neurocompile::diagonal_scan`."""

from __future__ import annotations

import torch
from torch import Tensor

from neurocompile.ops.diagonal_scan import torch_op  # noqa: F401 -- defines the operator


def diagonal_scan(
    a_re: Tensor,
    a_im: Tensor,
    b_re: Tensor,
    b_im: Tensor,
    x0_re: Tensor | None = None,
    x0_im: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Evaluates x_k = a_k x_{k-1} + b_k, elementwise and complex, for k = 0 .. T-1.

    The recurrence of a diagonal state space layer (event-ssm, arXiv 2404.18508): a_k = exp(Lambda step dt_k) and
    b_k = gamma_k B u_k. States are accumulated in float32, or in float64 if any input is float64; half-precision inputs
    are widened first and the result is not narrowed again. Differentiable once in all six inputs.

    Args:
        a_re: (B, T, P) real part of the decay, dimensionless.
        a_im: (B, T, P) imaginary part of the decay.
        b_re: (B, T, P) real part of the input, in units of the state.
        b_im: (B, T, P) imaginary part of the input.
        x0_re: (B, P) real part of the state before the first step, zero if `None`.
        x0_im: (B, P) imaginary part of it; both or neither.

    Returns:
        (B, T, P) real and imaginary part of every state, float32 or float64.
    """
    if (x0_re is None) != (x0_im is None):
        raise ValueError("diagonal_scan: the initial state needs both parts, x0_re and x0_im, or neither")
    inputs = [a_re, a_im, b_re, b_im]
    if x0_re is not None and x0_im is not None:
        inputs += [x0_re, x0_im]
    _check(inputs)
    if x0_re is None:
        batch, _, width = b_re.shape
        inputs += [b_re.new_zeros(batch, width), b_im.new_zeros(batch, width)]
    return torch.ops.neurocompile.diagonal_scan(*inputs)


def _check(inputs: list[Tensor]) -> None:
    names = ("a_re", "a_im", "b_re", "b_im", "x0_re", "x0_im")
    if inputs[2].dim() != 3:
        raise ValueError(f"diagonal_scan: b_re has shape {tuple(inputs[2].shape)}, expected (B, T, P)")
    batch, steps, width = inputs[2].shape
    for name, value, shape in zip(names, inputs, [(batch, steps, width)] * 4 + [(batch, width)] * 2, strict=False):
        if value.shape != shape:
            raise ValueError(f"diagonal_scan: {name} has shape {tuple(value.shape)}, expected {shape} as b_re has it")
        if not value.is_floating_point():
            raise TypeError(f"diagonal_scan: {name} is {value.dtype}; pass complex numbers as two real tensors")
