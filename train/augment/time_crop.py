"""Keep a random span of time, so that a network can answer before a recording is over."""

from __future__ import annotations

import numpy as np

from train.augment.columns import Columns


def time_crop(events: Columns, rng: np.random.Generator, shortest: float) -> Columns:
    """Keeps the events of one span at a random place, of a length from U(shortest, 1) times the recording's.

    Args:
        events: (N,) events.
        rng: Source of randomness.
        shortest: Fraction of the recording's duration in (0, 1]; 1 keeps everything.

    Returns:
        The events of the span, times unchanged.
    """
    if shortest >= 1 or len(events) < 2:
        return events
    duration = int(events.t[-1] - events.t[0])
    length = rng.uniform(shortest, 1) * duration
    begin = events.t[0] + rng.uniform(0, duration - length)
    first, last = np.searchsorted(events.t, [begin, begin + length])
    return events[first : max(last, first + 1)]
