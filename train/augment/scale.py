"""Enlarge or shrink a whole recording."""

from __future__ import annotations

import numpy as np

from train.augment.columns import Columns


def scale(
    events: Columns, rng: np.random.Generator, largest: float, width: int, height: int, probability: float = 0.3
) -> Columns:
    """With `probability`, multiplies x and y by one factor from U(1/largest, largest), from the origin.

    Args:
        events: (N,) events.
        rng: Source of randomness.
        largest: At least 1.
        width: Sensor columns.
        height: Sensor rows.
        probability: How often anything happens.

    Returns:
        The events that stay on the sensor, coordinates truncated.
    """
    if rng.random() >= probability or largest == 1:
        return events
    factor = rng.uniform(1 / largest, largest)
    x, y = np.trunc(events.x * factor).astype(np.int64), np.trunc(events.y * factor).astype(np.int64)
    return Columns(events.t, x, y, events.p).inside(width, height)
