"""Running sums in additions and shifts, for compilers that make a loop of a cumulative sum or have none."""

from __future__ import annotations

import torch
from torch import Tensor


def running_sum(value: Tensor, axis: int) -> Tensor:
    """Sums up to and with every place along one axis, in ceil(log2 T) rounds of doubling distance.

    Args:
        value: Of any shape; its length along `axis` is a number, not a symbol.
        axis: Which axis, not negative.

    Returns:
        The sums, of the same shape and type.
    """
    length, distance = int(value.shape[axis]), 1
    while distance < length:
        fill = torch.zeros_like(value.narrow(axis, 0, distance))
        value = value + torch.cat((fill, value.narrow(axis, 0, length - distance)), axis)
        distance *= 2
    return value


def sum_of_later(value: Tensor, axis: int) -> Tensor:
    """Sums of all that comes after every place along one axis; as `running_sum`, from the end and without the place."""
    length = int(value.shape[axis])
    fill = torch.zeros_like(value.narrow(axis, 0, 1))
    value = torch.cat((value.narrow(axis, 1, length - 1), fill), axis)
    distance = 1
    while distance < length:
        fill = torch.zeros_like(value.narrow(axis, 0, distance))
        value = value + torch.cat((value.narrow(axis, distance, length - distance), fill), axis)
        distance *= 2
    return value
