"""Keep a random share of the events: what a less sensitive, or a busier, sensor would have sent."""

from __future__ import annotations

import numpy as np

from train.augment.columns import Columns


def thin(events: Columns, rng: np.random.Generator, fewest: int, most: int) -> Columns:
    """Keeps a random subset of n events, n from U{fewest..most}, or all events if there are no more than that.

    Unlike `drop_event` with a fraction, this bounds the cost of a training step, whatever the recording's length.

    Args:
        events: (N,) events.
        rng: Source of randomness.
        fewest: Lower bound of n.
        most: Upper bound of n; 0 keeps everything.

    Returns:
        The kept events, in their order.
    """
    if not most:
        return events
    count = int(rng.integers(fewest, most + 1))
    if len(events) <= count:
        return events
    return events[np.sort(rng.choice(len(events), count, replace=False, shuffle=False))]
