"""ROS 1 bag `.bag` with `event_camera_msgs/EventPacket` messages whose payload is EVT 3.0.

    record    header bytes (u32), header, data bytes (u32), data
    header    fields: bytes (u32), name=value; `op` says what the record is
    op 5      a chunk: its data are records, as they are or compressed with bz2 or LZ4
    op 7      a connection: its data are fields too, `type` names the message type
    op 2      a message of connection `conn`

The payloads of a topic make one stream of words: what one message set stands in the next.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from runtime.errors import UserError
from runtime.events.container import Events, Recording
from runtime.events.formats import evt3, lz4
from runtime.events.formats.format import File, Format

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, CHUNK, CONNECTION = 2, 5, 7
PACKET_TYPES = ("event_camera_msgs/EventPacket", "event_camera_codecs_msgs/EventPacket")


@dataclass
class Topic:
    """What was found of one event topic."""

    name: str
    size: tuple[int, int] | tuple[None, None] = (None, None)
    payloads: list[bytes] = field(default_factory=list)


def decode(file: File) -> Recording:
    """Reads the events."""
    if not file.data.startswith(MAGIC):
        raise file.error("does not begin with '#ROSBAG V2.0'; it is another format or damaged")
    topics: dict[int, Topic] = {}
    others: set[str] = set()
    try:
        for header, data in _all_records(file.data):
            op = header["op"][0]
            if op == CONNECTION:
                kind = _fields(data).get("type", b"?").decode("utf-8", "replace")
                name = header["topic"].decode("utf-8", "replace")
                if kind in PACKET_TYPES:
                    topics.setdefault(struct.unpack("<I", header["conn"])[0], Topic(name))
                else:
                    others.add(f"{name} ({kind})")
            elif op == MESSAGE and (topic := topics.get(struct.unpack("<I", header["conn"])[0])):
                _message(file, topic, data)
    except (struct.error, KeyError, IndexError, ValueError, OSError, EOFError) as error:
        raise file.error(f"is a damaged bag ({error}); copy it again or run 'rosbag reindex'") from None
    names = sorted({topic.name for topic in topics.values()})
    if not names:
        raise file.error(f"holds no event packets ({PACKET_TYPES[0]}), only {', '.join(sorted(others)) or 'nothing'}")
    if len(names) > 1:
        raise file.error(f"holds {len(names)} event topics ({', '.join(names)}); filter it to one with 'rosbag filter'")
    decoder = evt3.Decoder()
    parts = [decoder.feed(np.frombuffer(payload, "<u2")) for topic in topics.values() for payload in topic.payloads]
    return Recording(Events.concatenate(parts), *next(iter(topics.values())).size)


def _message(file: File, topic: Topic, data: bytes) -> None:
    """Takes the payload out of one message: std header, height, width, seq, time base, encoding, endianness, bytes."""
    (frame,) = struct.unpack_from("<I", data, 12)
    height, width, _, _, named = struct.unpack_from("<IIQQI", data, 16 + frame)
    at = 16 + frame + 28
    encoding, at = data[at : at + named].decode("utf-8", "replace"), at + named
    big_endian, size = struct.unpack_from("<BI", data, at)
    payload = data[at + 5 : at + 5 + size]
    if encoding != "evt3" or big_endian:
        raise UserError(f"{file.name}: topic {topic.name} is encoded as {encoding!r}; only little-endian evt3 is read")
    if len(payload) != size or size % 2:
        raise ValueError(f"a message of {topic.name} breaks off")
    if topic.size not in ((None, None), (width, height)):
        raise UserError(f"{file.name}: topic {topic.name} changes its sensor size; filter the bag to one part")
    topic.size = (width, height) if width and height else (None, None)
    topic.payloads.append(payload)


def _all_records(data: bytes) -> Iterator[tuple[dict[str, bytes], bytes]]:
    """Every record of the bag, those inside chunks included."""
    for header, content in _records(data, len(MAGIC)):
        yield header, content
        if header["op"][0] == CHUNK:
            yield from _records(_unpack(header["compression"], content, struct.unpack("<I", header["size"])[0]), 0)


def _unpack(method: bytes, content: bytes, size: int) -> bytes:
    if method == b"none":
        return content
    if method == b"lz4":
        return lz4.decompress(content)
    if method == b"bz2":
        import bz2

        # No more than the size the chunk declares is ever unpacked.
        return bz2.BZ2Decompressor().decompress(content, size)
    raise ValueError(f"a chunk is compressed with {method.decode('latin-1')!r}")


def _records(data: bytes, at: int) -> Iterator[tuple[dict[str, bytes], bytes]]:
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        header = _fields(data[at + 4 : at + 4 + size])
        (content,) = struct.unpack_from("<I", data, at + 4 + size)
        begin = at + 8 + size
        if begin + content > len(data):
            raise ValueError(f"it breaks off inside the record at byte {at}")
        yield header, data[begin : begin + content]
        at = begin + content


def _fields(data: bytes) -> dict[str, bytes]:
    fields, at = {}, 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        name, _, value = data[at + 4 : at + 4 + size].partition(b"=")
        fields[name.decode("latin-1")] = value
        at += 4 + size
    return fields


FORMAT = Format("rosbag1", "ROS 1 bag of EVT 3.0 packets", (".bag",), lambda head: head.startswith(MAGIC), decode)
