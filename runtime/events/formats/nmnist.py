"""N-MNIST and N-Caltech101 `.bin`: no header, five bytes an event.

    byte 0          x
    byte 1          y; 240 marks a clock overflow instead of an event: from it on, times count 2^13 us more
    byte 2, bit 7   polarity, 1 = ON
    the other 23    time in microseconds, big-endian

The file does not say how large the sensor is. A path that names N-MNIST, with coordinates that fit, means 34 x 34;
anything else stays unknown.
"""

from __future__ import annotations

import re

import numpy as np

from runtime.events.container import Events, Recording
from runtime.events.formats.format import File, Format

RECORD = 5
OVERFLOW_ROW = 240
OVERFLOW_US = 1 << 13
TIME_BITS = 23
SIDE = 34


def decode(file: File) -> Recording:
    """Reads the events."""
    if rest := len(file.data) % RECORD:
        raise file.error(
            f"breaks off inside the event at byte {len(file.data) - rest}, as its size is not a multiple of {RECORD}; "
            "copy the file again, or check that it is N-MNIST data"
        )
    rows = np.frombuffer(file.data, np.uint8).reshape(-1, RECORD)
    t = ((rows[:, 2] & 0x7F).astype(np.int64) << 16) | (rows[:, 3].astype(np.int64) << 8) | rows[:, 4]
    x, y, p = rows[:, 0], rows[:, 1], rows[:, 2] >= 0x80
    overflow = y == OVERFLOW_ROW
    if overflow.any():
        t = t + OVERFLOW_US * np.cumsum(overflow)
        t, x, y, p = (column[~overflow] for column in (t, x, y, p))
    named = re.search(r"(?<![a-z])n[-_]?mnist", file.name.lower())
    side = SIDE if named and len(t) and max(x.max(), y.max()) < SIDE else None
    return Recording(Events(t, x, y, p), side, side)


FORMAT = Format("nmnist", "N-MNIST / N-Caltech101", (".bin",), None, decode)
