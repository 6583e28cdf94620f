"""Sums over streams of any length."""

from __future__ import annotations

import torch
from torch import Tensor


def two_sum(total: Tensor, value: Tensor) -> Tensor:
    """Adds to a compensated sum (Knuth's TwoSum).

    Args:
        total: (2, H) sum and its rounding error so far.
        value: (H,) addend.

    Returns:
        (2, H).
    """
    old = total[0]
    new = old + value
    virtual = new - old
    error = (old - (new - virtual)) + (value - virtual)
    return torch.stack((new, total[1] + error))
