"""`diagonal_scan` over a known number of steps in operators that every compiler knows; `onnx_static.py` in torch.

Prefixes of the pairs (a, b) by doubling (Hillis and Steele, 1986), with x_0 taken into the first b.
"""

from __future__ import annotations

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def expand(
    a_re: Tensor, a_im: Tensor, b_re: Tensor, b_im: Tensor, x0_re: Tensor, x0_im: Tensor
) -> tuple[Tensor, Tensor]:
    """The op in ceil(log2 T) rounds.

    Args:
        a_re: (B, T, P) real part of the decay; T is a number, not a symbol.
        a_im: (B, T, P) imaginary part.
        b_re: (B, T, P) real part of the input.
        b_im: (B, T, P) imaginary part.
        x0_re: (B, P) real part of the state before.
        x0_im: (B, P) imaginary part.

    Returns:
        (B, T, P) real and imaginary part of the states, float32.
    """
    a, b, x0 = ((re.float(), im.float()) for re, im in ((a_re, a_im), (b_re, b_im), (x0_re, x0_im)))
    steps = int(b_re.shape[1])
    if not steps:
        return b
    first = _sum(_product(_cut(a, 0, 1), (x0[0][:, None], x0[1][:, None])), _cut(b, 0, 1))
    b = _join(first, _cut(b, 1, steps))
    distance = 1
    while distance < steps:
        zeros = torch.zeros_like(b[0][:, :distance])
        earlier = _join((zeros, zeros), _cut(b, 0, steps - distance))
        b = _sum(_product(a, earlier), b)
        if 2 * distance < steps:
            a = _product(a, _join((torch.ones_like(zeros), zeros), _cut(a, 0, steps - distance)))
        distance *= 2
    return b


def _product(a: Pair, b: Pair) -> Pair:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _sum(a: Pair, b: Pair) -> Pair:
    return a[0] + b[0], a[1] + b[1]


def _cut(pair: Pair, begin: int, end: int) -> Pair:
    return pair[0][:, begin:end], pair[1][:, begin:end]


def _join(first: Pair, rest: Pair) -> Pair:
    return torch.cat((first[0], rest[0]), 1), torch.cat((first[1], rest[1]), 1)
