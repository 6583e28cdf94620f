"""Move events of a camera to neighbouring pixels."""

from __future__ import annotations

import numpy as np

from train.augment.columns import Columns


def jitter_pixel(events: Columns, rng: np.random.Generator, variance: float, width: int, height: int) -> Columns:
    """Adds N(0, variance) to x and to y, truncates the sums towards zero and drops what leaves the sensor.

    Args:
        events: (N,) events.
        rng: Source of randomness.
        variance: In pixels squared (what the published settings call `spatial_jitter` in two dimensions).
        width: Sensor columns.
        height: Sensor rows.

    Returns:
        The events that stay on the sensor.
    """
    if not variance:
        return events
    shift = rng.normal(0.0, np.sqrt(variance), (2, len(events)))
    x, y = np.trunc(events.x + shift[0]), np.trunc(events.y + shift[1])
    return Columns(events.t, x.astype(np.int64), y.astype(np.int64), events.p).inside(width, height)
