"""How the faces of `lif` that compute see its tensors: steps by neurons, and decays that vary along either or none."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor


def sum_dtype(*inputs: Tensor) -> torch.dtype:
    """The type of the membrane: float32, or float64 if any input is."""
    return reduce(torch.promote_types, (value.dtype for value in inputs), torch.float32)


def flat_decay(decay: Tensor, shape: torch.Size) -> Tensor:
    """The decay as (1, 1), (1, N) or (T, N).

    Args:
        decay: Of a shape that broadcasts to `shape`.
        shape: (T, ..) with N elements in a step.

    Returns:
        What varies with the step has T rows; what varies with the neuron, or with the step, has N columns.
    """
    if decay.numel() == 1:
        return decay.reshape(1, 1)
    if decay.dim() < len(shape) or decay.shape[0] == 1:
        return decay.expand(1, *shape[1:]).reshape(1, -1)
    return decay.expand(shape).reshape(shape[0], -1)


def fold_decay(gradient: Tensor, decay: Tensor, shape: torch.Size) -> Tensor:
    """The gradient by the decay from the one by `flat_decay`, whose columns may have stayed apart.

    Args:
        gradient: (1, N) or (T, N).
        decay: As given to `flat_decay`.
        shape: As given there.

    Returns:
        A tensor of the shape and type of `decay`.
    """
    if decay.numel() == 1:
        return gradient.sum().to(decay.dtype).reshape(decay.shape)
    return gradient.reshape(gradient.shape[0], *shape[1:]).sum_to_size(decay.shape).to(decay.dtype)
