"""Real event sequences for parity: shipped recordings, joined, and mapped onto the model's sensor where it differs."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import numpy as np

from runtime.events.container import Events, Recording
from runtime.events.shipped import samples
from runtime.front_ends import FrontEnd

PAUSE = 1000
"""Ticks between two joined recordings."""


def join(recordings: list[Recording]) -> Recording:
    """One stream out of recordings of the same tick: each begins `PAUSE` ticks after the last event before it."""
    parts, now = [], 0
    for recording in recordings:
        events = recording.events
        if not len(events):
            continue
        parts.append(replace(events, t=events.t - events.t[0] + now))
        now = int(parts[-1].t[-1]) + PAUSE
    first = without_folder(recordings[0])
    source = first.source
    if len(recordings) > 1:
        source = f"{len(recordings)} recordings joined, from {source}"
    return Recording(Events.concatenate(parts), first.width, first.height, first.tick_us, source, first.format)


def without_folder(recording: Recording) -> Recording:
    """The recording under its file's bare name: bundles do not name folders of the machine they were made on."""
    archive, zipped, member = recording.source.partition(".zip:")
    return replace(recording, source=archive.replace("\\", "/").rsplit("/", 1)[-1] + zipped + member)


def shipped_sequence(events: int) -> Recording:
    """At least `events` events of the shipped test recordings, joined, again from the first where they run out."""
    found: list[Recording] = []
    total = 0
    for _, recording in cycle(list(samples("test"))):
        found.append(recording)
        total += len(recording.events)
        if total >= events:
            break
    joined = join(found)
    return Recording(joined.events[:events], joined.width, joined.height, joined.tick_us, joined.source, joined.format)


def fit_to_sensor(recording: Recording, front_end: FrontEnd) -> Recording:
    """The recording as the model's sensor might have seen it.

    Coordinates are scaled; where the model's sensor is finer, the time stamp picks among the finer cells, so that the
    whole vocabulary is touched. Audio channels come from the linear pixel index. Time and polarity stay as recorded.

    Args:
        recording: A recording with known sensor size.
        front_end: The model's front end.

    Returns:
        The same recording if the sensors agree, otherwise a mapped one whose `source` says so; with intensities from 1
        to 8 that the time stamps pick, where the model takes clusters.
    """
    width, height = front_end.width, front_end.height
    if getattr(front_end, "intensity", False) and recording.events.intensity is None:
        events = replace(recording.events, intensity=1 + recording.events.t // 3 % 8)
        source = f"{recording.source}, with intensities of 1 to 8 made up"
        recording = replace(recording, events=events, source=source)
    if (recording.width, recording.height) == (width, height):
        return recording
    old_width, old_height = recording.width or 1, recording.height or 1
    events = recording.events
    if front_end.rule == "channel":
        pixel = events.y.astype(np.int64) * old_width + events.x
        x, y = _finer(pixel, events.t, old_width * old_height, width), np.zeros(len(events), np.int64)
    else:
        x = _finer(events.x, events.t, old_width, width)
        y = _finer(events.y, events.t // 7, old_height, height)
    mapped = replace(events, x=x, y=y)
    source = f"{recording.source}, mapped from {old_width} x {old_height} to {width} x {height}"
    return Recording(mapped, width, height, recording.tick_us, source, recording.format)


def _finer(cell: np.ndarray, salt: np.ndarray, old: int, new: int) -> np.ndarray:
    cell = cell.astype(np.int64)
    low = cell * new // old
    span = np.maximum((cell + 1) * new // old - low, 1)
    return np.minimum(low + salt % span, new - 1)
