"""What every front end asks of an event: inside the sensor, a possible time, not before the event before it."""

from __future__ import annotations

from typing import NoReturn

from runtime.errors import UserError
from runtime.events.container import Events

# Times beyond this are refused: the gap between any two that remain fits into 64 bits.
LATEST = 1 << 62


def check_events(events: Events, width: int, height: int, number: int, last: int | None) -> None:
    """Raises unless all events can follow one another.

    Args:
        events: At least one event.
        width: Sensor columns.
        height: Sensor rows.
        number: How many events came before, for messages.
        last: Time of the event before them, `None` at the beginning of a stream.

    Raises:
        UserError: Naming the first event that cannot.
    """
    t = events.t
    bad = (events.x >= width) | (events.y >= height) | (t > LATEST) | (t < -LATEST)
    bad[1:] |= t[1:] < t[:-1]
    bad[0] |= last is not None and t[0] < last
    if bad.any():
        row = int(bad.argmax())
        before = int(t[row - 1]) if row else last
        refuse(int(t[row]), int(events.x[row]), int(events.y[row]), width, height, number + row, before)


def refuse(t: int, x: int, y: int, width: int, height: int, number: int, before: int | None) -> NoReturn:
    """Says why an event cannot be taken.

    Args:
        t: Its time in ticks.
        x: Its column or channel.
        y: Its row.
        width: Sensor columns.
        height: Sensor rows.
        number: How many events came before it.
        before: Time of the event before it.

    Raises:
        UserError: Always.
    """
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(
            f"event {number} at x={x}, y={y} lies outside the model's {width} x {height} sensor; "
            "check the sensor size, or crop with --roi or scale with --resize"
        )
    if not -LATEST <= t <= LATEST:
        raise UserError(f"event {number} has the impossible time t={t}; check the recording")
    raise UserError(
        f"event {number} at t={t} is earlier than the event before it at t={before}; "
        "sort the recording by time first, or reset the session between recordings"
    )


def refuse_intensity() -> NoReturn:
    """Says that a model of single events takes no clusters.

    Raises:
        UserError: Always.
    """
    raise UserError(
        "these events have intensities, as clusters have, but the model was trained on single events; "
        "give it the events that the clusters were made from"
    )
