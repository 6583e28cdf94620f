"""Blur the times of events."""

from __future__ import annotations

import numpy as np

from train.augment.columns import Columns


def time_jitter(events: Columns, rng: np.random.Generator, deviation: float) -> Columns:
    """Adds N(0, deviation) to every time, truncates to whole microseconds and sorts again; negative times stay.

    Args:
        events: (N,) events.
        rng: Source of randomness.
        deviation: Standard deviation in microseconds.

    Returns:
        As many events, in time order.
    """
    if not deviation:
        return events
    t = np.trunc(events.t + rng.normal(0.0, deviation, len(events))).astype(np.int64)
    return Columns(t, events.x, events.y, events.p).sorted()
