"""What the benchmark pushes: one long stream out of recordings, and one sentence that says how it came about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Any

import numpy as np

from runtime.errors import UserError
from runtime.events import Events, Recording, check_stream, resize
from runtime.events.shipped import samples

PAUSE = 1000


@dataclass(frozen=True, eq=False)
class Workload:
    """A stream of exactly as many events as asked for.

    Attributes:
        events: The events.
        tick_us: Length of their tick.
        source: Where they came from and what was done to them.
    """

    events: Events
    tick_us: float
    source: str


def of_recording(recording: Recording, events: int) -> Workload:
    """A recording's first `events` events; a shorter one is repeated, each time `PAUSE` ticks after the last event."""
    count = len(recording.events)
    if not count:
        raise UserError(f"{recording.source}: holds no events, so there is nothing to time")
    times = -(-events // count)
    source = recording.source if times == 1 else f"{recording.source}, {times} times over"
    return Workload(_join(repeat(recording, times))[:events], recording.tick_us, source)


def shipped(events: int, front_end: Mapping[str, Any]) -> Workload:
    """The shipped test recordings one after the other, scaled to the model's sensor where that differs."""
    recordings = [recording for _, recording in samples("test")]
    width, height = front_end.get("width"), front_end.get("height")
    source = f"the {len(recordings)} shipped N-MNIST test recordings, one after the other"
    size = (recordings[0].width, recordings[0].height)
    if width and height and size != (width, height):
        recordings = [resize(recording, width, height)[0] for recording in recordings]
        source += f", scaled from {size[0]} x {size[1]} to {width} x {height}"
    total = sum(len(recording.events) for recording in recordings)
    times = -(-events // total)
    if times > 1:
        source += f", {times} times over"
    joined = _join(chain.from_iterable(repeat(recordings, times)))[:events]
    check_stream(Recording(joined, width, height, source=source), width=width, height=height)
    return Workload(joined, 1.0, source)


def _join(recordings: Iterable[Recording]) -> Events:
    parts, now = [], 0
    for recording in recordings:
        events = recording.events
        if len(events):
            parts.append(replace(events, t=events.t - events.t[0] + now))
            now = int(parts[-1].t[-1]) + PAUSE
    return Events.concatenate(parts)


def arrivals(workload: Workload, rate: float | str, begin: int) -> np.ndarray:
    """(N,) int64 nanoseconds at which events `begin`.. are due, counted from the first of them.

    Args:
        workload: The stream.
        rate: Events per second at even distances, or `recorded` for the stream's own times.
        begin: The first event that is paced.
    """
    count = len(workload.events) - begin
    if rate == "recorded":
        t = workload.events.t[begin:]
        return ((t - t[0]) * (workload.tick_us * 1000)).astype(np.int64)
    return (np.arange(count) * (1e9 / float(rate))).astype(np.int64)
