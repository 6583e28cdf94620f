"""The definition of `diagonal_scan`: x_k = a_k x_{k-1} + b_k, elementwise and complex, as (re, im) pairs."""

from __future__ import annotations

import torch
from torch import Tensor


def diagonal_scan(
    a_re: Tensor,
    a_im: Tensor,
    b_re: Tensor,
    b_im: Tensor,
    x0_re: Tensor | None = None,
    x0_im: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Evaluates the recurrence one step after the other.

    Args:
        a_re: (B, T, P) real part of the decay.
        a_im: (B, T, P) imaginary part of the decay.
        b_re: (B, T, P) real part of the input.
        b_im: (B, T, P) imaginary part of the input.
        x0_re: (B, P) real part of the state before the first step, zero if `None`.
        x0_im: (B, P) imaginary part of it.

    Returns:
        (B, T, P) real and imaginary part of every state.
    """
    re = torch.zeros_like(b_re[:, 0]) if x0_re is None else x0_re
    im = torch.zeros_like(b_im[:, 0]) if x0_im is None else x0_im
    states_re, states_im = [], []
    # Unbound once, because the gradient of indexing inside the loop would be a full tensor for every step.
    for ar, ai, br, bi in zip(*(value.unbind(1) for value in (a_re, a_im, b_re, b_im)), strict=True):
        re, im = ar * re - ai * im + br, ar * im + ai * re + bi
        states_re.append(re)
        states_im.append(im)
    return torch.stack(states_re, 1), torch.stack(states_im, 1)
