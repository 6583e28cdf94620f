"""Forget a run of events, as when a sensor's bus stalls."""

from __future__ import annotations

import numpy as np

from train.augment.columns import Columns


def drop_event_chunk(events: Columns, rng: np.random.Generator, largest: float, probability: float = 0.3) -> Columns:
    """With `probability`, removes a run of 1 to `largest` * n - 1 neighbouring events at a random place.

    Recordings too short for a run (`largest` * n <= 1), on which the published implementation fails, stay whole.

    Args:
        events: (N,) events.
        rng: Source of randomness.
        largest: Upper bound of the run as a fraction of the recording.
        probability: How often anything happens.

    Returns:
        The events outside the run.
    """
    limit = int(largest * len(events))
    if rng.random() >= probability or limit <= 1:
        return events
    run = int(rng.integers(1, limit))
    begin = int(rng.integers(0, len(events) - run + 1))
    keep = np.ones(len(events), np.bool_)
    keep[begin : begin + run] = False
    return events[keep]
