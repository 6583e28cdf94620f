"""AEDAT 4: a line, a flatbuffer header with an XML table of streams, then packets of one stream each.

    packet: stream number (i32), bytes (i32), then that many bytes: a flatbuffer, compressed as the header says
    event:  time (i64, microseconds since 1970), x (i16), y (i16), polarity (u8), three unused bytes

Only packets of the event stream are decompressed; frames, motion samples and triggers are passed over. A file without
an event stream is a recording without events.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from runtime.events.container import Events, Recording
from runtime.events.formats import lz4
from runtime.events.formats.flatbuffer import Table
from runtime.events.formats.format import File, Format

MAGIC = b"#!AER-DAT4.0\r\n"
EVENT = np.dtype(
    {"names": ["t", "x", "y", "p"], "formats": ["<i8", "<i2", "<i2", "u1"], "offsets": [0, 8, 10, 12], "itemsize": 16}
)
COMPRESSIONS = {0: "none", 1: "LZ4", 2: "LZ4", 3: "zstd", 4: "zstd"}


@dataclass(frozen=True)
class Stream:
    """One line of the table of streams."""

    number: int
    kind: str
    size: tuple[int, int] | tuple[None, None]


def decode(file: File) -> Recording:
    """Reads the events."""
    if not file.data.startswith(MAGIC):
        raise file.error("does not begin with '#!AER-DAT4.0'; it is another format or damaged")
    try:
        (size,) = struct.unpack_from("<I", file.data, len(MAGIC))
        begin = len(MAGIC) + 4 + size
        header = Table(file.data[len(MAGIC) : begin], b"IOHE")
        compression = COMPRESSIONS.get(header.scalar(0, "i", 0), "an unknown method")
        end = header.scalar(1, "q", -1)
        streams = _streams(header.string(2))
    except (struct.error, ValueError) as error:
        raise file.error(f"has a damaged header ({error}); copy it again") from None
    if compression not in ("none", "LZ4"):
        raise file.error(
            f"is compressed with {compression}, which is not read; save it with LZ4 or without compression"
        )
    events = [stream for stream in streams if stream.kind == "EVTS"]
    if len(events) > 1:
        raise file.error(f"holds {len(events)} event streams; export the one to read to a file of its own")
    if not events:
        sizes = [stream.size for stream in streams if stream.size[0]]
        return Recording(Events.empty(), *(sizes[0] if sizes else (None, None)))
    parts = [Events.empty()]
    for at, packet in _packets(file, begin, end, events[0].number):
        try:
            parts.append(_events(lz4.decompress(packet) if compression == "LZ4" else packet))
        except (struct.error, ValueError) as error:
            raise file.error(f"the packet at byte {at} is damaged ({error}); copy the file again") from None
    return Recording(Events.concatenate(parts), *events[0].size)


def _packets(file: File, begin: int, end: int, number: int) -> Iterator[tuple[int, bytes]]:
    """Offset and content of every packet of one stream."""
    # -1 or 0 stands in files that were not closed; their packets go on to the end.
    end = end if begin <= end <= len(file.data) else len(file.data)
    at = begin
    while at < end:
        if at + 8 > end:
            raise file.error(f"breaks off inside the packet at byte {at}; copy it again")
        stream, size = struct.unpack_from("<ii", file.data, at)
        if size < 0 or at + 8 + size > end:
            raise file.error(f"breaks off inside the packet at byte {at}; copy it again")
        if stream == number:
            yield at, file.data[at + 8 : at + 8 + size]
        at += 8 + size


def _events(data: bytes) -> Events:
    at, length = Table(data, b"EVTS").vector(0, EVENT.itemsize)
    rows = np.frombuffer(data, EVENT, length, at)
    # A negative coordinate becomes 32768 or more: outside every sensor, so the checks find it.
    return Events(rows["t"], rows["x"].view(np.uint16), rows["y"].view(np.uint16), rows["p"] != 0)


def _streams(table: str) -> list[Stream]:
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(table)
    except ElementTree.ParseError as error:
        raise ValueError(f"table of streams: {error}") from None
    streams = []
    for node in root.iterfind(".//node[@name='outInfo']/node"):
        about = {attr.get("key"): attr.text for attr in node.iterfind("attr")}
        info = {attr.get("key"): attr.text for attr in node.iterfind("node[@name='info']/attr")}
        size = (int(info["sizeX"] or 0), int(info["sizeY"] or 0)) if {"sizeX", "sizeY"} <= set(info) else (None, None)
        streams.append(Stream(int(node.get("name", "")), about.get("typeIdentifier") or "", size))
    return streams


FORMAT = Format("aedat4", "AEDAT 4", (".aedat4",), lambda head: head.startswith(MAGIC), decode)
