"""Forget single events."""

from __future__ import annotations

import numpy as np

from train.augment.columns import Columns


def drop_event(events: Columns, rng: np.random.Generator, fraction: float) -> Columns:
    """Drops exactly round(fraction * n) of n events, chosen at random.

    Args:
        events: (N,) events.
        rng: Source of randomness.
        fraction: Between 0 and 1.

    Returns:
        The others, in their order.
    """
    dropped = round(fraction * len(events))
    if not dropped:
        return events
    keep = np.ones(len(events), np.bool_)
    keep[rng.choice(len(events), dropped, replace=False, shuffle=False)] = False
    return events[keep]
