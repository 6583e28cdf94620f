"""Move events of a one-dimensional sensor to neighbouring channels."""

from __future__ import annotations

import numpy as np

from train.augment.columns import Columns


def jitter_channel(events: Columns, rng: np.random.Generator, deviation: float, channels: int) -> Columns:
    """Adds trunc(N(0, deviation)) to every channel; events that leave the sensor are lost.

    Args:
        events: (N,) events.
        rng: Source of randomness.
        deviation: Standard deviation in channels (what the published settings call `spatial_jitter` in one dimension).
        channels: Number of channels of the sensor.

    Returns:
        The events that stay on the sensor.
    """
    if not deviation:
        return events
    shift = np.trunc(rng.normal(0.0, deviation, len(events))).astype(np.int64)
    return Columns(events.t, events.x + shift, events.y, events.p).inside(channels, 1 << 62)
