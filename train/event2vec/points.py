"""The events of one recording as samples are drawn from it: whole numbers from a sensor, fractions from clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.errors import UserError
from train.augment import Columns


@dataclass(frozen=True, eq=False)
class Points:
    """Events, or clusters of them.

    Attributes:
        t: (N,) times, never decreasing; int64 microseconds, or float64 of any unit.
        x: (N,) columns.
        y: (N,) rows.
        p: (N,) polarities, 0 or 1.
        intensity: (N,) weights, e.g. how many events a cluster stands for; `None` for single events.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    intensity: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, rows: slice | np.ndarray) -> Points:
        weight = None if self.intensity is None else self.intensity[rows]
        return Points(self.t[rows], self.x[rows], self.y[rows], self.p[rows], weight)

    @classmethod
    def of(cls, recording: Columns | Points) -> Points:
        """The events of a recording."""
        if isinstance(recording, Points):
            return recording
        return cls(recording.t, recording.x, recording.y, recording.p)


SAMPLERS = ("random_sample", "span", "run", "last", "none")


def draw(points: Points, count: int, sampler: str, rng: np.random.Generator, every: int = 1) -> Points:
    """Takes the events of one sample; recordings that have no more than a sample needs are taken as they are.

    Args:
        points: The recording.
        count: Events per sample.
        sampler: `random_sample`: any of them, as published; `span`: any of a random run of `count` to all events;
            `run`: neighbouring events, what a deployed window holds at a random moment; `last`: the same when the
            recording ends; `none`: all.
        rng: Source of randomness.
        every: Of `run` and `last`: every so many events one is taken, as `Window.every`.

    Returns:
        The events, in their order, times from 0 on.
    """
    if sampler in ("run", "last") and every > 1:
        # Of a whole recording a stream takes the events number every, 2 every, ..
        points = points[(every - 1 if sampler == "last" else int(rng.integers(every))) :: every]
    total = len(points)
    if sampler != "none" and total > count:
        if sampler in ("run", "last"):
            begin = total - count if sampler == "last" else int(rng.integers(total - count + 1))
            points = points[begin : begin + count]
        else:
            begin, length = 0, total
            if sampler == "span":
                length = int(rng.integers(count, total + 1))
                begin = int(rng.integers(0, total - length + 1))
            points = points[begin + np.sort(rng.choice(length, count, replace=False, shuffle=False))]
    if not len(points):
        return points
    return Points(points.t - points.t[0], points.x, points.y, points.p, points.intensity)


def check_sampler(name: str) -> None:
    """Raises `UserError` if there is no such sampler."""
    if name not in SAMPLERS:
        raise UserError(f"sampler {name!r} does not exist; choose one of {', '.join(SAMPLERS)}")
