"""Whether a recording can go into a model: something in it, inside its sensor, the model's sensor, forward in time."""

from __future__ import annotations

import numpy as np

from runtime.errors import UserError
from runtime.events.container import Recording


def check_stream(recording: Recording, *, width: int | None = None, height: int | None = None) -> None:
    """Refuses a recording that a session would not or should not take.

    A recording that does not know its sensor passes if its events lie inside the model's.

    Args:
        recording: What was read.
        width: Columns (channels) of the sensor that the model was trained for; `None` checks the recording alone.
        height: Rows (ears) of it.

    Raises:
        UserError: One sentence on the first thing that is wrong and what to do.
    """
    events, source = recording.events, recording.source
    if not len(events):
        raise UserError(f"{source}: holds no events; check that it is the right file and that it has an event stream")
    for name, side, wanted in (("wide", recording.width, width), ("high", recording.height, height)):
        if side is not None and wanted is not None and side != wanted:
            raise UserError(
                f"{source}: is from a {_size(recording.width, recording.height)} sensor, but the model was trained for "
                f"{_size(width, height)} ({side} is not {wanted} {name}); crop with --roi or scale with --resize"
            )
    _inside(
        recording,
        recording.width,
        recording.height,
        "the sensor its file declares",
        "the file is damaged, or give --size",
    )
    _inside(recording, width, height, "the sensor of the model", "crop with --roi or scale with --resize")
    back = events.t[1:] < events.t[:-1]
    if back.any():
        row = int(back.argmax()) + 1
        raise UserError(
            f"{source}: time goes backwards at event {row}, from {events.t[row - 1]} to {events.t[row]} (and "
            f"{int(back.sum()) - 1} more times in {len(events)} events); sort it with --sort, if its events are right"
        )


def _inside(recording: Recording, width: int | None, height: int | None, what: str, remedy: str) -> None:
    events = recording.events
    outside = np.zeros(len(events), np.bool_)
    if width is not None:
        outside |= events.x >= width
    if height is not None:
        outside |= events.y >= height
    if outside.any():
        row = int(outside.argmax())
        raise UserError(
            f"{recording.source}: event {row} at x={events.x[row]}, y={events.y[row]} lies outside {what}, "
            f"{_size(width, height)} ({int(outside.sum())} events do); {remedy}"
        )


def _size(width: int | None, height: int | None) -> str:
    return f"{'?' if width is None else width} x {'?' if height is None else height}"
