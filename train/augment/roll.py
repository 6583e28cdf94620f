"""Shift a whole recording."""

from __future__ import annotations

import numpy as np

from train.augment.columns import Columns


def roll(
    events: Columns, rng: np.random.Generator, largest: int, width: int, height: int, probability: float = 0.3
) -> Columns:
    """With `probability`, shifts by whole pixels from [-largest, largest) in x and y; what leaves the sensor is lost.

    Args:
        events: (N,) events.
        rng: Source of randomness.
        largest: Pixels.
        width: Sensor columns.
        height: Sensor rows.
        probability: How often anything happens.

    Returns:
        The events that stay on the sensor.
    """
    if rng.random() >= probability or largest < 1:
        return events
    right, down = rng.integers(-largest, largest, 2)
    return Columns(events.t, events.x + right, events.y + down, events.p).inside(width, height)
