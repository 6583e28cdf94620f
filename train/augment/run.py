"""Keep a run of neighbouring events."""

from __future__ import annotations

import numpy as np

from train.augment.columns import Columns


def run(events: Columns, rng: np.random.Generator, fewest: int, most: int) -> Columns:
    """Keeps n neighbouring events at a random place, n from U{fewest..most}, or all if there are no more than that.

    Unlike `thin` it leaves the gaps between events as they were.

    Args:
        events: (N,) events.
        rng: Source of randomness.
        fewest: Lower bound of n.
        most: Upper bound of n; 0 keeps everything.

    Returns:
        The kept events, times unchanged.
    """
    if not most:
        return events
    count = int(rng.integers(fewest, most + 1))
    if len(events) <= count:
        return events
    begin = int(rng.integers(0, len(events) - count + 1))
    return events[begin : begin + count]
