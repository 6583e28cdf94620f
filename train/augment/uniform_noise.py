"""Add background activity."""

from __future__ import annotations

import numpy as np

from train.augment.columns import Columns


def uniform_noise(events: Columns, rng: np.random.Generator, limit: int, width: int, height: int) -> Columns:
    """Adds 0 to limit - 1 events, uniform over the sensor, both polarities and the time of the recording.

    Args:
        events: (N,) events.
        rng: Source of randomness.
        limit: One more than the largest number of added events; 0 adds none.
        width: Sensor columns, or channels.
        height: Sensor rows, 1 for audio.

    Returns:
        All events in time order.
    """
    count = int(rng.integers(0, limit)) if limit > 0 and len(events) else 0
    if not count:
        return events
    noise = Columns(
        rng.integers(events.t[0], events.t[-1] + 1, count),
        rng.integers(0, width, count),
        rng.integers(0, height, count),
        # A sensor without polarities says ON always, and so does its noise.
        rng.integers(0, 2, count) if height > 1 else np.ones(count, np.int64),
    )
    return Columns.merged(events, noise)
