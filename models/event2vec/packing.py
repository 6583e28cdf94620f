"""Packing: events that count move to the front in order, so that neither holes nor padding are seen by an attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Order:
    """Where each position goes, forwards and reversed; `None` where every position counts.

    Attributes:
        mask: (B, L) bool, positions that count.
        taken: (2 B, L) position that each place takes; reversed samples follow the others.
        place: (2 B, L) place that each position went to.
    """

    mask: Tensor | None = None
    taken: Tensor | None = None
    place: Tensor | None = None

    @classmethod
    def everything(cls) -> Order:
        """All positions count."""
        return cls()

    @classmethod
    def of(cls, mask: Tensor) -> Order:
        """Positions that count come first, forwards and then reversed; the others follow in any order."""
        taken = torch.argsort((~mask).long(), dim=1, stable=True)
        count = mask.sum(1, keepdim=True)
        places = torch.arange(mask.shape[1], device=mask.device).expand_as(taken)
        turned = taken.gather(1, torch.where(places < count, count - 1 - places, places))
        both = torch.cat((taken, turned))
        return cls(mask, both, torch.argsort(both, dim=1))

    def both_ways(self, value: Tensor) -> Tensor:
        """(B, L, ..) -> (2 B, L, ..), packed; the second half reversed."""
        if self.taken is None:
            return torch.cat((value, value.flip(1)))
        return _pick(torch.cat((value, value)), self.taken)

    def back(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """(2 B, L, H, D) -> both halves as (B, L, H D) in place, 0 where a position does not count."""
        both = both.flatten(2)
        if self.place is None or self.mask is None:
            forward, backward = both.chunk(2)
            return forward, backward.flip(1)
        forward, backward = _pick(both, self.place).chunk(2)
        hole = ~self.mask[..., None]
        return forward.masked_fill(hole, 0), backward.masked_fill(hole, 0)


def _pick(value: Tensor, places: Tensor) -> Tensor:
    """The rows of (N, L, ..) at (N, L) places."""
    index = places.reshape(*places.shape, *(1 for _ in value.shape[2:])).expand(value.shape)
    return value.gather(1, index)
