"""Augmentations of tokens and of intensities, in training only."""

from __future__ import annotations

import torch
from torch import Tensor


def token_mix(tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Replaces the tokens at some positions, the same in the whole batch, by those of a partner.

    The number of positions is n = (1 - lambda) L rounded down, lambda from U(0, 1) = Beta(1, 1). Which positions count
    is left as it is.

    Args:
        tokens: (B, L, d).
        targets: (B, C).

    Returns:
        (B, L, d) mixed tokens and (B, C) targets, (1 - n / L) own + n / L partner's.
    """
    batch, length = tokens.shape[:2]
    partners = torch.randperm(batch, device=tokens.device)
    count = int((1 - float(torch.rand(()))) * length)
    taken = torch.zeros(length, dtype=torch.bool, device=tokens.device)
    taken[torch.randperm(length, device=tokens.device)[:count]] = True
    share = count / length
    mixed = torch.where(taken[None, :, None], tokens[partners], tokens)
    return mixed, (1 - share) * targets + share * targets[partners]


def intensity_drop(intensity: Tensor, probability: float) -> Tensor:
    """(B, L) weights, each set to 1 with a probability; the given ones are not changed."""
    return torch.where(torch.rand_like(intensity) < probability, torch.ones_like(intensity), intensity)
