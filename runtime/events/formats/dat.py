"""DAT version 2: a text header, one byte event type, one byte event size, then little-endian records of two words.

word 0   time in microseconds
word 1   x in bits 13..0, y in 27..14, polarity in 28
"""

from __future__ import annotations

import re

import numpy as np

from runtime.events.container import Events, Recording
from runtime.events.formats.clock import unwrap
from runtime.events.formats.format import File, Format
from runtime.events.formats.header import text_header

CHANGE_EVENTS = (0, 12)
RECORD = 8


def recognises(head: bytes) -> bool:
    """Whether the header is a DAT header: it names its version or calls itself a data file."""
    lines, _ = text_header(head, "%", last="end")
    return any(re.match(r"(data file containing|version \d)", line.lower()) for line in lines)


def decode(file: File) -> Recording:
    """Reads the events."""
    lines, end = text_header(file.data, "%", last="end")
    if len(file.data) < end + 2:
        raise file.error(f"breaks off at byte {len(file.data)}, before the event type; copy it again")
    kind, record = file.data[end], file.data[end + 1]
    if kind not in CHANGE_EVENTS or record != RECORD:
        raise file.error(
            f"holds events of type {kind} with {record} bytes each, not change events (type 0 or 12, {RECORD} bytes); "
            "only those can be read"
        )
    body = len(file.data) - end - 2
    if rest := body % RECORD:
        raise file.error(f"breaks off inside the event at byte {len(file.data) - rest}; copy it again")
    words = np.frombuffer(file.data, "<u4", offset=end + 2).reshape(-1, 2)
    place = words[:, 1]
    size = {}
    for line in lines:
        if found := re.fullmatch(r"(width|height) (\d{1,5})", line.lower()):
            size[found[1]] = int(found[2])
    events = Events(unwrap(words[:, 0], 32), place & 0x3FFF, (place >> 14) & 0x3FFF, (place >> 28) & 1 == 1)
    return Recording(events, size.get("width"), size.get("height"))


FORMAT = Format("dat", "DAT version 2", (".dat",), recognises, decode)
