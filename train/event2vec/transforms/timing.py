"""Augmentations that change times."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator

from train.event2vec.transforms.field import Field, Numbers
from train.event2vec.transforms.removal import chunk


def random_chunk_wrap(field: Field, generator: Generator, chunks: Numbers, factors: Numbers) -> Field:
    """Inside n runs of 1 to m events, multiplies every time by a number of its own from U(factors)."""
    chosen = field.mask & chunk(field, generator, chunks)
    return replace(field, t=torch.where(chosen, field.t * field.per_event(generator, *factors), field.t))


def random_temporal_wrap(field: Field, generator: Generator, factors: Numbers) -> Field:
    """Multiplies every gap by a number of its own from U(factors) and adds the gaps up again from the first time.

    A gap that ends at an event that does not count is 0, and the time of such an event becomes -1.
    """
    gaps = field.t.diff(dim=1) * field.per_event(generator, *factors)[:, 1:] * field.mask[:, 1:]
    t = field.t[:, :1] + torch.cat((torch.zeros_like(field.t[:, :1]), gaps.cumsum(1)), 1)
    return replace(field, t=torch.where(field.mask, t, torch.full_like(t, -1)))
