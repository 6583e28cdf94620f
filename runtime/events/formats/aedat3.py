"""AEDAT 3.1 (cAER; the raw files of DVS128 Gesture): a text header, then little-endian packets.

    packet header, 28 bytes: event type (i16, 1 = change events), source (i16), event bytes (i32), offset of the time in
                             an event (i32), times 2^31 us passed (i32), room (i32), events (i32), valid events (i32)
    change event, 8 bytes:   x in bits 31..17, y in 16..2, ON in 1, valid in 0; then time (i32, microseconds)

Events marked invalid are left out.
"""

from __future__ import annotations

import re
import struct

import numpy as np

from runtime.events.container import Events, Recording
from runtime.events.formats.format import File, Format
from runtime.events.formats.header import text_header

MAGIC = b"#!AER-DAT3."
PACKET = struct.Struct("<hhiiiiii")
CHANGE = 1
RECORD = 8
SIZES = {
    "dvs128": (128, 128),
    "davis240": (240, 180),
    "davis346": (346, 260),
    "davis640": (640, 480),
    "davis208": (208, 192),
}


def decode(file: File) -> Recording:
    """Reads the events."""
    if not file.data.startswith(MAGIC + b"1"):
        raise file.error("is not AEDAT 3.1, the only version 3 that is read; convert it with the camera vendor's tools")
    lines, at = text_header(file.data, "#", last="!END-HEADER")
    form = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("Format:")), "RAW")
    if form != "RAW":
        raise file.error(f"is stored as {form}; only AEDAT 3.1 stored as RAW is read")
    if "!END-HEADER" not in lines:
        raise file.error("has no end of its header; it is damaged")
    parts = [Events.empty()]
    while at < len(file.data):
        if at + PACKET.size > len(file.data):
            raise file.error(f"breaks off inside the packet at byte {at}; copy it again")
        kind, _, each, _, overflow, _, number, _ = PACKET.unpack_from(file.data, at)
        body = at + PACKET.size
        # Packets are written with their events only, whatever room they had in memory.
        end = body + each * number
        if each <= 0 or number < 0 or overflow < 0 or (kind == CHANGE and each != RECORD):
            raise file.error(f"the packet at byte {at} is damaged; copy the file again")
        if end > len(file.data):
            raise file.error(f"breaks off inside the packet at byte {at}; copy it again")
        if kind == CHANGE:
            rows = np.frombuffer(file.data, "<u4", 2 * number, body).reshape(-1, 2)
            rows = rows[rows[:, 0] & 1 == 1]
            place, t = rows[:, 0], rows[:, 1].astype(np.int64) + (overflow << 31)
            parts.append(Events(t, place >> 17, (place >> 2) & 0x7FFF, (place >> 1) & 1 == 1))
        at = end
    return Recording(Events.concatenate(parts), *_size(lines))


def _size(lines: list[str]) -> tuple[int, int] | tuple[None, None]:
    sources = "\n".join(line.lower() for line in lines if re.match(r"-?Source", line))
    return next((size for name, size in SIZES.items() if name in sources), (None, None))


FORMAT = Format("aedat3", "AEDAT 3.1", (".aedat", ".aedat3"), lambda head: head.startswith(MAGIC), decode)
