"""AEDAT 3.1, the format of the original DVS128 Gesture recordings.

    header   lines that begin with `#` and end with CR LF, the last one `#!END-HEADER`
    packets  28 bytes: type u16, source u16, event size u32, offset of the time in an event u32, overflow count of the
             time u32, capacity u32, events u32, valid events u32; then the events
    polarity event (type 1): word u32 (bit 0 valid, bit 1 ON, bits 2..16 y, bits 17..31 x), time u32 in microseconds

All little-endian. A time is `overflow << 31 | time`. Other types of packets are skipped.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from runtime.errors import UserError
from train.augment import Columns

PACKET = struct.Struct("<HHIIIIII")
POLARITY = 1
END = b"#!END-HEADER"


def read(path: str | Path) -> Columns:
    """Reads the valid polarity events of a file, in the file's order.

    Args:
        path: The file.

    Raises:
        UserError: If the file is not AEDAT 3.1 or ends inside a packet.
    """
    data = Path(path).read_bytes()
    if not data.startswith(b"#!AER-DAT3.1"):
        raise UserError(
            f"{path}: does not begin with #!AER-DAT3.1, so it is no original gesture recording; fetch it again"
        )
    end = data.find(END)
    begin = data.find(b"\n", end) + 1
    if end < 0 or not begin:
        raise UserError(f"{path}: breaks off inside its header; fetch it again")
    words, times = [], []
    while begin < len(data):
        if begin + PACKET.size > len(data):
            raise UserError(f"{path}: breaks off inside a packet's header at byte {begin}; fetch it again")
        kind, _, size, _, overflow, _, count, _ = PACKET.unpack_from(data, begin)
        begin += PACKET.size
        if begin + size * count > len(data):
            raise UserError(f"{path}: breaks off inside the packet at byte {begin}; fetch it again")
        if kind == POLARITY:
            rows = np.frombuffer(data, "<u4", 2 * count, begin).reshape(count, 2)
            words.append(rows[:, 0])
            times.append(rows[:, 1].astype(np.int64) + (overflow << 31))
        begin += size * count
    if not words:
        raise UserError(f"{path}: holds no events; fetch it again")
    word, t = np.concatenate(words), np.concatenate(times)
    valid = (word & 1) == 1
    word, t = word[valid].astype(np.int64), t[valid]
    return Columns(t, word >> 17, (word >> 2) & 0x7FFF, (word >> 1) & 1)


def write(path: str | Path, events: Columns, packet: int = 4096) -> None:
    """Writes events in packets of at most `packet`; for made-up recordings and tests."""
    header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n" + END + b"\r\n"
    with Path(path).open("wb") as file:
        file.write(header)
        for begin in range(0, len(events), packet):
            part = events[begin : begin + packet]
            word = (part.x << 17) | (part.y << 2) | (part.p << 1) | 1
            file.write(PACKET.pack(POLARITY, 1, 8, 4, 0, len(part), len(part), len(part)))
            file.write(np.stack([word, part.t], 1).astype("<u4").tobytes())
