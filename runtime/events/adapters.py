"""What may be done to a recording so that a model can take it; each says in a dict what it did, for reports."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from runtime.errors import UserError
from runtime.events.container import Recording

LARGEST = 1 << 16


def sort_by_time(recording: Recording) -> tuple[Recording, dict[str, Any]]:
    """The events in order of time; events of equal time keep the order they have.

    Returns:
        The recording, and `{"adapter": "sort_by_time", "steps_back": how often time went backwards}`.
    """
    t = recording.events.t
    steps_back = int((t[1:] < t[:-1]).sum())
    events = recording.events[np.argsort(t, kind="stable")] if steps_back else recording.events
    return replace(recording, events=events), {"adapter": "sort_by_time", "steps_back": steps_back}


def roi(recording: Recording, x: int, y: int, width: int, height: int) -> tuple[Recording, dict[str, Any]]:
    """The events of a rectangle, as those of a sensor of its size.

    Args:
        recording: Any recording.
        x: Left column of the rectangle.
        y: Row of its smallest y.
        width: Its columns.
        height: Its rows.

    Returns:
        The recording with `x`, `y` counted from the rectangle's corner, and a dict with the rectangle and how many
        events were kept and dropped.

    Raises:
        UserError: If the rectangle does not lie inside the sensor.
    """
    if width < 1 or height < 1 or x < 0 or y < 0 or max(x + width, y + height) > LARGEST:
        raise UserError(f"region x={x} y={y} of {width} x {height} is not possible; give --roi X,Y,WIDTH,HEIGHT")
    for end, side in ((x + width, recording.width), (y + height, recording.height)):
        if side is not None and end > side:
            raise UserError(
                f"region x={x} y={y} of {width} x {height} reaches outside the {recording.width} x {recording.height} "
                f"sensor of {recording.source}; choose one inside it"
            )
    events = recording.events
    keep = (events.x >= x) & (events.x < x + width) & (events.y >= y) & (events.y < y + height)
    inside = events[keep]
    moved = replace(inside, x=inside.x - np.uint16(x), y=inside.y - np.uint16(y))
    record = {"adapter": "roi", "x": x, "y": y, "width": width, "height": height}
    counts = {"kept": len(moved), "dropped": len(events) - len(moved)}
    return replace(recording, events=moved, width=width, height=height), record | counts


def resize(recording: Recording, width: int, height: int) -> tuple[Recording, dict[str, Any]]:
    """Every event at the pixel of a `width` x `height` sensor in which the centre of its own pixel falls.

        x' = floor((x + 1/2) width / W)        W: columns before

    No event is dropped, merged or added: shrinking leaves as many events on fewer pixels, growing leaves pixels empty.

    Returns:
        The recording, and a dict with the sizes before and after.

    Raises:
        UserError: If the recording does not know its sensor's size, or a size is not possible.
    """
    if not (1 <= width <= LARGEST and 1 <= height <= LARGEST):
        raise UserError(
            f"size {width} x {height} is not possible; give --resize WIDTHxHEIGHT, each from 1 to {LARGEST}"
        )
    if recording.width is None or recording.height is None:
        raise UserError(
            f"{recording.source}: does not say how large its sensor is, so it cannot be scaled; add --size WxH"
        )
    events = recording.events
    if len(events) and (events.x.max() >= recording.width or events.y.max() >= recording.height):
        raise UserError(
            f"{recording.source}: has events outside its {recording.width} x {recording.height} sensor; crop with --roi"
        )
    x = (2 * events.x.astype(np.int64) + 1) * width // (2 * recording.width)
    y = (2 * events.y.astype(np.int64) + 1) * height // (2 * recording.height)
    before = {"from_width": recording.width, "from_height": recording.height}
    record = {"adapter": "resize", **before, "width": width, "height": height}
    return replace(recording, events=replace(events, x=x, y=y), width=width, height=height), record


def parse_roi(text: str) -> tuple[int, int, int, int]:
    """(x, y, width, height) of `X,Y,WIDTH,HEIGHT`, the value of `--roi`.

    Raises:
        UserError: If the text is not like that.
    """
    found = re.fullmatch(r"\s*(\d{1,5}),(\d{1,5}),(\d{1,5}),(\d{1,5})\s*", text)
    if not found:
        raise UserError(f"region {text!r} is not like X,Y,WIDTH,HEIGHT, for example 64,32,128,128")
    x, y, width, height = map(int, found.groups())
    return x, y, width, height


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of `WIDTHxHEIGHT`, the value of `--resize` and `--size`.

    Raises:
        UserError: If the text is not like that.
    """
    found = re.fullmatch(r"\s*(\d{1,5})[xX,](\d{1,5})\s*", text)
    if not found:
        raise UserError(f"size {text!r} is not like WIDTHxHEIGHT, for example 128x128")
    return int(found[1]), int(found[2])
