"""Turn a whole recording."""

from __future__ import annotations

import numpy as np

from train.augment.columns import Columns


def rotate(
    events: Columns, rng: np.random.Generator, largest: float, width: int, height: int, probability: float = 0.3
) -> Columns:
    """With `probability`, turns by an angle from U(-largest, largest) about (width/2, height/2).

    Coordinates are truncated and clipped to the last pixel. The published implementation clips to `width` and `height`,
    one too far: such an event carries the token of another pixel, or of none, which ends in NaN.

    Args:
        events: (N,) events.
        rng: Source of randomness.
        largest: Degrees.
        width: Sensor columns.
        height: Sensor rows.
        probability: How often anything happens.

    Returns:
        As many events.
    """
    if rng.random() >= probability or not largest:
        return events
    angle = np.deg2rad(rng.uniform(-largest, largest))
    right, down = events.x - width / 2, events.y - height / 2
    x = np.trunc(np.cos(angle) * right - np.sin(angle) * down + width / 2)
    y = np.trunc(np.sin(angle) * right + np.cos(angle) * down + height / 2)
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    return Columns(events.t, x.astype(np.int64), y.astype(np.int64), events.p)
