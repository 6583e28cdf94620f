"""Event Stream `.es`, type 1 (change events): a 20-byte header, then five bytes an event.

    `Event Stream`, three version bytes, the type byte, width and height (u16, little-endian)
    byte 0          steps << 1 | polarity: microseconds since the event before, 1 = ON
    bytes 1, 2      x (u16, little-endian)
    bytes 3, 4      y
    a byte 0 whose seven upper bits are all set stands alone and adds 127 microseconds

y is kept as stored: row 0 is the bottom row of the image. A model sees the rows it was trained with; a model trained
on a top-down camera needs height - 1 - y.
"""

from __future__ import annotations

import numpy as np

from runtime.events.container import Events, Recording
from runtime.events.formats.format import File, Format

MAGIC = b"Event Stream"
HEADER = 20
RECORD = 5
OVERFLOW = 0x7F
CHUNK = 1 << 16


def decode(file: File) -> Recording:
    """Reads the events."""
    data = file.data
    if not data.startswith(MAGIC):
        raise file.error("does not begin with 'Event Stream'; it is another format or damaged")
    if len(data) < HEADER:
        raise file.error(f"breaks off at byte {len(data)} inside its {HEADER}-byte header; copy it again")
    if data[12] != 2 or data[15] != 1:
        raise file.error(
            f"is Event Stream {data[12]}.{data[13]}.{data[14]} of type {data[15]}; "
            "only version 2 of type 1 (change events) is read"
        )
    width, height = np.frombuffer(data, "<u2", 2, offset=16).tolist()
    body = np.frombuffer(data, np.uint8, offset=HEADER)
    parts, start, clock = [], 0, 0
    while start < len(body):
        heads, start = _heads(body, start)
        first = body[heads]
        steps, marker = (first >> 1).astype(np.int64), first >> 1 == OVERFLOW
        t = clock + np.cumsum(steps)
        clock = int(t[-1])
        at = heads[~marker]
        if start > len(body):
            raise file.error(f"breaks off inside the event at byte {HEADER + int(heads[-1])}; copy it again")
        rest = body[at[:, None] + np.arange(1, RECORD)].view("<u2")
        parts.append(Events(t[~marker], rest[:, 0], rest[:, 1], body[at] & 1 == 1))
    return Recording(Events.concatenate(parts), width, height)


def _heads(body: np.ndarray, start: int) -> tuple[np.ndarray, int]:
    """Offsets of the records that begin within a chunk, and where the first record after it begins.

    Where a record begins depends on the length of every record before it. Jump tables make that parallel: with
    `jump[i]` the record that follows `2^k` records after the one at `i`, k doublings reach every record of the chunk.
    """
    chunk = body[start : start + CHUNK]
    size = len(chunk)
    step = np.arange(size + RECORD)  # Places behind the chunk lead to themselves.
    step[:size] += np.where(chunk >> 1 == OVERFLOW, 1, RECORD)
    jumps, jump = [], step
    while jump[0] < size:
        jumps.append(jump)
        jump = jump[jump]
    heads = np.zeros(1, np.int64)
    for jump in reversed(jumps):
        heads = np.stack([heads, jump[heads]], axis=1).ravel()
    heads = heads[heads < size]
    return heads + start, int(step[heads[-1]]) + start


FORMAT = Format("es", "Event Stream 2", (".es",), lambda head: head.startswith(MAGIC), decode)
