"""Initial token tables."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from runtime.errors import UserError
from runtime.front_ends.token_dt import TokenDt


def fourier(front_end: TokenDt, width: int, length: float) -> Tensor:
    """Random Fourier features of a pixel's place, so that neighbouring pixels begin alike.

    Row (x, y, p) is sqrt(2 / H) cos(k·(x, y) + phase), k ~ N(0, 1 / length²) and phase ~ U(0, 2 pi) drawn for every
    feature and for each polarity anew; rows of places r apart have the correlation exp(-r² / (2 length²)).

    Args:
        front_end: Rule `linear`, or `channel` (where y is 0).
        width: Number H of features.
        length: Correlation length in pixels or channels.

    Returns:
        (vocabulary, H) float32 rows of about unit norm, the scale that a normal initialisation with std H^-1/2 has.

    Raises:
        UserError: If the token rule gives pixels no token of their own.
    """
    if front_end.rule == "product":
        raise UserError(
            "embedding_init `fourier` needs the token rule `linear` or `channel`; with `product` a token is no place"
        )
    y, x = torch.meshgrid(torch.arange(front_end.height), torch.arange(front_end.width), indexing="ij")
    place = torch.stack([x.flatten(), y.flatten()], 1).float()
    planes = []
    for _ in range(front_end.vocabulary // len(place)):
        wave, phase = torch.randn(2, width) / length, 2 * math.pi * torch.rand(width)
        planes.append(math.sqrt(2 / width) * torch.cos(place @ wave + phase))
    return torch.cat(planes)
