"""A padded batch of events while it is being changed. Nothing is changed in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Field:
    """Events of B samples; coordinates may take any real value, events that are removed are only flagged.

    Attributes:
        p: (B, L) polarities.
        y: (B, L) rows.
        x: (B, L) columns.
        t: (B, L) times.
        mask: (B, L) bool, false on padding and on removed events.
    """

    p: Tensor
    y: Tensor
    x: Tensor
    t: Tensor
    mask: Tensor

    def per_sample(self, generator: Generator, low: float, high: float) -> Tensor:
        """(B, 1) numbers from U(low, high)."""
        return self._uniform((len(self.x), 1), generator, low, high)

    def per_event(self, generator: Generator, low: float, high: float) -> Tensor:
        """(B, L) numbers from U(low, high)."""
        return self._uniform(tuple(self.x.shape), generator, low, high)

    def _uniform(self, shape: tuple[int, ...], generator: Generator, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=self.x.dtype)


Transform = Callable[[Field, Generator], Field]
"""One item of the grammar with its numbers."""

Numbers = tuple[float, ...]
"""One argument of an item."""
