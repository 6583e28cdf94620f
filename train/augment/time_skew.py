"""Play a recording faster or slower."""

from __future__ import annotations

import numpy as np

from train.augment.columns import Columns


def time_skew(events: Columns, rng: np.random.Generator, largest: float) -> Columns:
    """Multiplies all times by one factor from U(1/largest, largest) and truncates them to whole microseconds.

    Args:
        events: (N,) events.
        rng: Source of randomness.
        largest: At least 1.

    Returns:
        As many events, in the same order.
    """
    if largest == 1:
        return events
    factor = rng.uniform(1 / largest, largest)
    return Columns(np.trunc(events.t * factor).astype(np.int64), events.x, events.y, events.p)
