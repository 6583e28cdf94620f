"""Merge pixels into coarser ones."""

from __future__ import annotations

from train.augment.columns import Columns


def downsample(events: Columns, factor: int) -> Columns:
    """Divides coordinates by `factor`, rounding down; no event is lost.

    Args:
        events: (N,) events.
        factor: Pixels of the sensor per pixel of the result, at least 1.

    Returns:
        As many events on the smaller sensor.
    """
    if factor == 1:
        return events
    return Columns(events.t, events.x // factor, events.y // factor, events.p)
