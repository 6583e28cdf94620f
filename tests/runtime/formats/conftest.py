"""A plain writer for every format, one event at a time, and a compressor for LZ4 frames."""

from __future__ import annotations

import bz2
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from runtime.events import Events

WIDTH, HEIGHT = 34, 30


def make_events(count: int = 200, *, width: int = WIDTH, height: int = HEIGHT, seed: int = 0, gap: int = 300) -> Events:
    rng = np.random.default_rng(seed)
    t = 5000 + np.cumsum(rng.integers(0, gap, count) * rng.integers(0, 2, count))
    return Events(t, rng.integers(0, width, count), rng.integers(0, height, count), rng.random(count) < 0.4)


def rows(events: Events) -> list[tuple[int, int, int, int]]:
    columns = (events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.astype(int).tolist())
    return list(zip(*columns, strict=True))


def evt2(events: Events, header: bytes = b"% evt 2.0\n% geometry 34x30\n% end\n") -> bytes:
    out, high = [header], None
    for t, x, y, p in rows(events):
        if t >> 6 != high:
            high = t >> 6
            out.append(struct.pack("<I", 8 << 28 | high & 0x0FFFFFFF))
        out.append(struct.pack("<I", p << 28 | (t & 63) << 22 | x << 11 | y))
    return b"".join(out)


def evt3_words(events: Events) -> list[int]:
    """Single events and vectors mixed: neighbours of one row, time and polarity go into one vector."""
    words, high, low, row = [], None, None, None
    left = rows(events)
    while left:
        t, x, y, p = left.pop(0)
        if t >> 12 != high:
            high = t >> 12
            words.append(8 << 12 | high & 0xFFF)
        if t & 0xFFF != low:
            low = t & 0xFFF
            words.append(6 << 12 | low)
        if y != row:
            row = y
            words.append(y)
        mask, last = 1, x
        while left and left[0][0] == t and left[0][2:] == (y, p) and last < left[0][1] < x + 20:
            last = left.pop(0)[1]
            mask |= 1 << (last - x)
        if mask == 1:
            words.append(2 << 12 | p << 11 | x)
        else:
            words += [3 << 12 | p << 11 | x, 4 << 12 | mask & 0xFFF, 5 << 12 | mask >> 12]
    return words


def evt3(events: Events, header: bytes = b"% evt 3.0\n% format EVT3;height=30;width=34\n% end\n") -> bytes:
    return header + np.array(evt3_words(events), "<u2").tobytes()


def dat(events: Events, kind: int = 12) -> bytes:
    header = b"% Data file containing CD events.\n% Version 2\n% Height 30\n% Width 34\n" + bytes([kind, 8])
    return header + b"".join(struct.pack("<II", t & 0xFFFFFFFF, x | y << 14 | p << 28) for t, x, y, p in rows(events))


def es(events: Events) -> bytes:
    out, clock = [b"Event Stream", bytes([2, 0, 0, 1]), struct.pack("<HH", WIDTH, HEIGHT)], 0
    for t, x, y, p in rows(events):
        while t - clock >= 127:
            out.append(b"\xfe")
            clock += 127
        out.append(struct.pack("<BHH", (t - clock) << 1 | p, x, y))
        clock = t
    return b"".join(out)


def nmnist(events: Events) -> bytes:
    return b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for t, x, y, p in rows(events))


def cochlea(events: Events) -> bytes:
    """34 channels, two ears, two address bytes."""
    return b"".join(struct.pack(">HI", y * 68 + 2 * x + p, t) for t, x, y, p in rows(events))


def aedat2(events: Events, chip: str | None = "DVS128") -> bytes:
    header = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
    header += f"# AEChip: some.java.package.{chip}\r\n".encode() if chip else b""
    out = [header]
    for t, x, y, p in rows(events):
        davis = chip is not None and "avis" in chip
        address = x << 12 | y << 22 | p << 11 if davis else x << 1 | y << 8 | (1 - p)
        out.append(struct.pack(">II", address, t & 0xFFFFFFFF))
    return b"".join(out)


def aedat3_packet(rows: list[tuple[int, int, int, int]], overflow: int = 0, valid: int = 1) -> bytes:
    head = struct.pack("<hhiiiiii", 1, 1, 8, 4, overflow, len(rows), len(rows), len(rows))
    return head + b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | valid, t) for t, x, y, p in rows)


def aedat3(events: Events) -> bytes:
    header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-01-01\r\n#!END-HEADER\r\n"
    special = struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1, 1, 1) + bytes(8)
    half = len(events) // 2
    return header + aedat3_packet(rows(events[:half])) + special + aedat3_packet(rows(events[half:]))


def lz4_block(data: bytes) -> bytes:
    """Greedy: the latest place where the next four bytes stood."""
    out, at, begin, seen = bytearray(), 0, 0, {}

    def sequence(literals: bytes, offset: int, length: int) -> None:
        def nibble(value: int) -> int:
            return min(value, 15)

        def rest(value: int) -> bytes:
            return b"" if value < 15 else b"\xff" * ((value - 15) // 255) + bytes([(value - 15) % 255])

        out.append(nibble(len(literals)) << 4 | (nibble(length - 4) if offset else 0))
        out.extend(rest(len(literals)) + literals)
        if offset:
            out.extend(struct.pack("<H", offset) + rest(length - 4))

    while at + 12 < len(data):
        key, found = data[at : at + 4], seen.get(data[at : at + 4])
        seen[key] = at
        if found is None or at - found > 0xFFFF:
            at += 1
            continue
        length = 4
        while at + length + 5 < len(data) and data[found + length] == data[at + length]:
            length += 1
        sequence(data[begin:at], at - found, length)
        at = begin = at + length
    sequence(data[begin:], 0, 0)
    return bytes(out)


def lz4_frame(
    data: bytes, *, block: int = 65536, stored: bool = False, sums: bool = False, size: bool = False
) -> bytes:
    flags = 0x40 | 0x20 | (0x14 if sums else 0) | (8 if size else 0)
    out = [struct.pack("<IBB", 0x184D2204, flags, 4 << 4), struct.pack("<Q", len(data)) if size else b"", b"\0"]
    for begin in range(0, len(data), block):
        part = data[begin : begin + block]
        packed = part if stored else lz4_block(part)
        out += [struct.pack("<I", len(packed) | stored << 31), packed, bytes(4) if sums else b""]
    return b"".join([*out, bytes(4), bytes(4) if sums else b""])


def aedat4_header(table: str, compression: int, end: int = -1) -> bytes:
    """A flatbuffer: layout (4 entries), table {compression, end of packets, string}, string."""
    text = table.encode() + b"\0"
    layout = struct.pack("<HHHHH", 10, 24, 4, 8, 16) + bytes(2)
    body = struct.pack("<iiqI", 12, compression, end, 4) + bytes(4)
    string = struct.pack("<I", len(text) - 1) + text
    buffer = struct.pack("<I4s", 20, b"IOHE") + layout + body[:20] + string
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(buffer)) + buffer


def aedat4_table(kinds: tuple[str, ...] = ("FRME", "EVTS")) -> str:
    nodes = "".join(
        f'<node name="{number}" path="/{number}/"><attr key="typeIdentifier" type="string">{kind}</attr>'
        f'<node name="info"><attr key="sizeX" type="int">{WIDTH}</attr>'
        f'<attr key="sizeY" type="int">{HEIGHT}</attr></node></node>'
        for number, kind in enumerate(kinds)
    )
    return f'<dv version="2.0"><node name="outInfo" path="/outInfo/">{nodes}</node></dv>'


def aedat4_events(events: Events) -> bytes:
    vector = b"".join(struct.pack("<qhhB3x", *row) for row in rows(events))
    layout, body = struct.pack("<HHHH", 6, 8, 4, 0), struct.pack("<iI", 8, 4)
    buffer = struct.pack("<I4s", 16, b"EVTS") + layout + body + struct.pack("<I", len(events)) + vector
    return struct.pack("<I", len(buffer)) + buffer


def aedat4(events: Events, compression: int = 1, kinds: tuple[str, ...] = ("FRME", "EVTS")) -> bytes:
    out = [aedat4_header(aedat4_table(kinds), compression)]
    for begin in range(0, len(events), 80):
        for number, content in ((0, b"frame, never looked at"), (1, aedat4_events(events[begin : begin + 80]))):
            packet = lz4_frame(content) if compression else content
            out.append(struct.pack("<ii", number, len(packet)) + packet)
    return b"".join(out)


def bag_record(data: bytes, **fields: bytes) -> bytes:
    header = b"".join(
        struct.pack("<I", len(name) + 1 + len(value)) + name.encode() + b"=" + value for name, value in fields.items()
    )
    return struct.pack("<I", len(header)) + header + struct.pack("<I", len(data)) + data


def bag_message(
    payload: bytes, encoding: bytes = b"evt3", conn: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> bytes:
    head = struct.pack("<III", 1, 2, 3) + struct.pack("<I", 3) + b"cam" + struct.pack("<IIQQ", size[1], size[0], 1, 2)
    data = head + struct.pack("<I", len(encoding)) + encoding + struct.pack("<BI", 0, len(payload)) + payload
    return bag_record(data, op=b"\x02", conn=struct.pack("<I", conn), time=bytes(8))


def bag_connection(kind: bytes = b"event_camera_msgs/EventPacket", topic: bytes = b"/events", conn: int = 0) -> bytes:
    about = struct.pack("<I", 5 + len(kind)) + b"type=" + kind
    return bag_record(about, op=b"\x07", conn=struct.pack("<I", conn), topic=topic)


def bag(*chunks: bytes, compression: bytes = b"none") -> bytes:
    pack = {b"none": bytes, b"bz2": bz2.compress, b"lz4": lz4_frame}[compression]
    out = [b"#ROSBAG V2.0\n", bag_record(b" " * 100, op=b"\x03", index_pos=bytes(8))]
    for chunk in chunks:
        out.append(bag_record(pack(chunk), op=b"\x05", compression=compression, size=struct.pack("<I", len(chunk))))
        out.append(bag_record(bytes(12), op=b"\x04", ver=bytes(4)))
    return b"".join(out)


def rosbag1(events: Events, compression: bytes = b"none") -> bytes:
    """Messages of 60 words, two to a chunk: state goes over from one to the next."""
    words = np.array(evt3_words(events), "<u2")
    messages = [bag_message(words[begin : begin + 60].tobytes()) for begin in range(0, len(words), 60)]
    chunks = [b"".join(messages[begin : begin + 2]) for begin in range(0, len(messages), 2)]
    return bag(bag_connection() + chunks[0], *chunks[1:], compression=compression)


def npz(events: Events) -> bytes:
    out = io.BytesIO()
    np.savez(out, t=events.t, x=events.x, y=events.y, p=events.p, width=WIDTH, height=HEIGHT, tick_us=1.0)
    return out.getvalue()


def npy(events: Events) -> bytes:
    out = io.BytesIO()
    table = np.array(rows(events), dtype=[("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
    np.save(out, table)
    return out.getvalue()


def mat_element(kind: int, data: bytes) -> bytes:
    if len(data) <= 4 and kind not in (14, 15):
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data + (b"" if kind == 15 else bytes(-len(data) % 8))


def mat_matrix(kind: int, shape: tuple[int, ...], name: bytes, *content: bytes) -> bytes:
    flags = mat_element(6, struct.pack("<II", kind, 0))
    dimensions = mat_element(5, struct.pack(f"<{len(shape)}i", *shape))
    return mat_element(14, b"".join([flags, dimensions, mat_element(1, name), *content]))


def mat_numbers(array: np.ndarray, name: bytes = b"") -> bytes:
    kinds = {"i1": (8, 1), "u1": (9, 2), "i2": (10, 3), "u2": (11, 4), "i4": (12, 5), "f8": (6, 9)}
    matlab, stored = kinds[array.dtype.str[1:]]
    return mat_matrix(matlab, array.shape, name, mat_element(stored, array.tobytes(order="F")))


def mat_struct(events: Events, name: bytes = b"") -> bytes:
    fields = {
        b"x": events.x.astype(np.uint8),
        b"y": events.y.astype(np.uint8),
        b"p": np.where(events.p, 1, -1).astype(np.int16),
        b"ts": events.t.astype(np.int32),
    }
    names = b"".join(field.ljust(8, b"\0") for field in fields)
    values = [mat_numbers(column[None]) for column in fields.values()]
    return mat_matrix(2, (1, 1), name, mat_element(5, struct.pack("<i", 8)), mat_element(1, names), *values)


def mat(*variables: bytes, packed: bool = True) -> bytes:
    header = b"MATLAB 5.0 MAT-file, written by a test".ljust(124, b" ") + struct.pack("<H2s", 0x100, b"IM")
    return header + b"".join(mat_element(15, zlib.compress(v)) if packed else v for v in variables)


def mat_recording(events: Events) -> bytes:
    return mat(mat_struct(events, b"TD"))


WRITERS: dict[str, tuple[str, Callable[[Events], bytes]]] = {
    "evt2": ("a.raw", evt2),
    "evt3": ("a.raw", evt3),
    "dat": ("a.dat", dat),
    "es": ("a.es", es),
    "aedat4": ("a.aedat4", aedat4),
    "aedat3": ("a.aedat", aedat3),
    "aedat2": ("a.aedat", aedat2),
    "rosbag1": ("a.bag", rosbag1),
    "npz": ("a.npz", npz),
    "npy": ("a.npy", npy),
    "mat": ("a.mat", mat_recording),
    "nmnist": ("a.bin", nmnist),
    "cochlea": ("a_stereo_34ch_ONOFF_addr2b_ts1.aedat", cochlea),
}


@pytest.fixture(scope="session")
def writers():
    """This module: what writes the formats."""
    import sys

    return sys.modules[__name__]


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    """(format, path, events) of a small recording in every format."""
    name, write = WRITERS[request.param]
    events = make_events(height=2 if request.param == "cochlea" else HEIGHT)
    (tmp_path / name).write_bytes(write(events))
    return request.param, tmp_path / name, events


@pytest.fixture
def same():
    """Asserts that two sets of events are the same."""

    def check(left: Events, right: Events) -> None:
        for name in "txyp":
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)

    return check
