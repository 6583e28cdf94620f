"""LZ4 frames, as AEDAT 4 packets and ROS bags hold them, without the lz4 library.

A frame is a header and blocks; a block is a run of sequences; a sequence is some literal bytes, then a copy of earlier
output. Checksums are skipped: damage shows in the decoded packet. Sizes come from the data, so every copy is checked
against the block size of the header before memory is taken for it.
"""

from __future__ import annotations

import struct

MAGIC = 0x184D2204
SKIPPABLE = range(0x184D2A50, 0x184D2A60)
MIN_MATCH = 4


class DamagedError(ValueError):
    """The bytes are no LZ4 frame, or one that breaks off."""


def decompress(data: bytes) -> bytes:
    """The content of the frames in `data`, one after the other.

    Raises:
        DamagedError: If the data is not what a frame may hold.
    """
    out = bytearray()
    at = 0
    try:
        while at < len(data):
            (magic,) = struct.unpack_from("<I", data, at)
            if magic in SKIPPABLE:
                at += 8 + struct.unpack_from("<I", data, at + 4)[0]
            elif magic == MAGIC:
                at = _frame(data, at + 4, out)
            else:
                raise DamagedError("no LZ4 frame begins here")
    except (IndexError, struct.error):
        raise DamagedError("an LZ4 frame breaks off") from None
    return bytes(out)


def _frame(data: bytes, at: int, out: bytearray) -> int:
    """Appends the content of one frame and returns the offset behind it."""
    flags, descriptor = data[at], data[at + 1]
    if flags >> 6 != 1 or flags & 1:
        raise DamagedError("the LZ4 frame is of another version or needs a dictionary")
    linked, block_checksum, content_size, content_checksum = (not flags & 0x20), flags & 0x10, flags & 8, flags & 4
    if descriptor >> 4 & 7 < 4:
        raise DamagedError("the LZ4 frame has an impossible block size")
    limit = 1 << (8 + 2 * (descriptor >> 4 & 7))
    at += 3 + (8 if content_size else 0)
    begin = len(out)
    while size := struct.unpack_from("<I", data, at)[0]:
        at += 4
        stored, size = size >> 31, size & 0x7FFFFFFF
        if size > limit or at + size > len(data):
            raise DamagedError("an LZ4 block breaks off")
        if stored:
            out += data[at : at + size]
        else:
            _block(data, at, at + size, out, begin if linked else len(out), len(out) + limit)
        at += size + (4 if block_checksum else 0)
    return at + 4 + (4 if content_checksum else 0)


def _block(data: bytes, at: int, end: int, out: bytearray, floor: int, limit: int) -> None:
    """Appends the content of one compressed block; copies reach back to `floor`, output up to `limit`."""
    while at < end:
        token = data[at]
        at += 1
        literals = token >> 4
        if literals == 15:
            while (more := data[at]) == 255:
                literals += 255
                at += 1
            literals += more
            at += 1
        stop = at + literals
        if stop > end or len(out) + literals > limit:
            raise DamagedError("an LZ4 block breaks off")
        out += data[at:stop]
        at = stop
        if at == end:
            return
        offset = data[at] | data[at + 1] << 8
        at += 2
        length = token & 15
        if length == 15:
            while (more := data[at]) == 255:
                length += 255
                at += 1
            length += more
            at += 1
        length += MIN_MATCH
        start = len(out) - offset
        if at > end or offset == 0 or start < floor or len(out) + length > limit:
            raise DamagedError("an LZ4 block copies from where there is nothing")
        if offset >= length:
            out += out[start : start + length]
        else:
            out += (out[start:] * (length // offset + 1))[:length]
