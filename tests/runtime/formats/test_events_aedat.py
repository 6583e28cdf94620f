"""AEDAT 2.0, 3.1 and 4, and the LZ4 frames inside."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import UserError
from runtime.events import Events, read_recording
from runtime.events.formats import File, aedat2, aedat3, aedat4, lz4


@pytest.mark.parametrize(
    ("chip", "size"),
    [
        ("DVS128", (128, 128)),
        (None, (128, 128)),
        ("Davis240C", (240, 180)),
        ("Davis346blue", (346, 260)),
        ("DavisX", (None, None)),
    ],
)
def test_aedat2_chips(chip, size, writers, same):
    events = (
        writers.make_events(width=128, height=128) if size[0] == 128 else writers.make_events(width=240, height=180)
    )
    recording = aedat2.decode(File(writers.aedat2(events, chip), "a.aedat"))
    same(recording.events, events)
    assert (recording.width, recording.height) == size


def test_aedat2_passes_over_what_is_no_change_event():
    davis = [0x80000000, 0x400, 0x800]
    data = b"#!AER-DAT2.0\r\n# AEChip: a.Davis240C\r\n#End Of ASCII Header\r\n"
    data += b"".join(struct.pack(">II", address, 9) for address in davis)
    assert len(aedat2.decode(File(data, "a.aedat")).events) == 1
    data = b"#!AER-DAT2.0\r\n" + struct.pack(">IIII", 0x8000, 1, 0x0303, 2)
    events = aedat2.decode(File(data, "a.aedat")).events
    assert (events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist()) == ([2], [1], [3], [False])


def test_aedat2_of_unknown_chips_is_one_sentence(writers):
    data = writers.aedat2(writers.make_events(), "Cochlea")
    with pytest.raises(UserError, match=r"recorded with chip some.java.package.Cochlea, whose addresses are not known"):
        aedat2.decode(File(data, "a.aedat"))
    with pytest.raises(UserError, match="does not name its chip and its addresses are not those of a DVS128"):
        aedat2.decode(File(b"#!AER-DAT2.0\r\n" + struct.pack(">II", 1 << 20, 0), "a.aedat"))


def test_aedat3_counts_overflows_and_leaves_invalid_events_out(writers):
    header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 2: DAVIS240C\r\n#!END-HEADER\r\n"
    data = header + writers.aedat3_packet([(7, 1, 2, 1)]) + writers.aedat3_packet([(8, 3, 4, 0)], valid=0)
    recording = aedat3.decode(File(data + writers.aedat3_packet([(9, 5, 6, 0)], overflow=3), "a.aedat"))
    assert recording.events.t.tolist() == [7, (3 << 31) + 9] and recording.events.y.tolist() == [2, 6]
    assert (recording.width, recording.height) == (240, 180)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"#!AER-DAT3.0\r\n#!END-HEADER\r\n", "is not AEDAT 3.1, the only version 3 that is read"),
        (b"#!AER-DAT3.1\r\n#Format: SerializedTS\r\n#!END-HEADER\r\n", "is stored as SerializedTS; only .* RAW"),
        (b"#!AER-DAT3.1\r\n#Format: RAW\r\n", "has no end of its header"),
        (b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + bytes(9), "breaks off inside the packet at byte 28"),
        (b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + bytes(28), "the packet at byte 28 is damaged"),
    ],
)
def test_aedat3_errors(data, message, tmp_path):
    (tmp_path / "a.aedat").write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_recording(tmp_path / "a.aedat")


@pytest.mark.parametrize("compression", [0, 1, 2])
def test_aedat4_compressions(compression, writers, same):
    events = writers.make_events(500)
    same(aedat4.decode(File(writers.aedat4(events, compression), "a")).events, events)


@pytest.mark.parametrize("compression", [3, 4])
def test_aedat4_with_zstd_is_one_sentence(compression, writers):
    with pytest.raises(UserError, match="is compressed with zstd, which is not read; save it with LZ4"):
        aedat4.decode(File(writers.aedat4(writers.make_events(), compression), "a"))


def test_aedat4_streams(writers):
    recording = aedat4.decode(File(writers.aedat4(writers.make_events(0), 1, ("FRME",)), "a"))
    assert len(recording.events) == 0 and (recording.width, recording.height) == (34, 30)
    with pytest.raises(UserError, match="holds 2 event streams; export the one to read"):
        aedat4.decode(File(writers.aedat4(writers.make_events(), 1, ("EVTS", "EVTS")), "a"))


def test_aedat4_ends_where_its_table_of_packets_begins(writers, same):
    events = writers.make_events(60)
    packet = writers.lz4_frame(writers.aedat4_events(events))
    packet = struct.pack("<ii", 1, len(packet)) + packet
    begin = len(writers.aedat4_header(writers.aedat4_table(), 1))
    data = writers.aedat4_header(writers.aedat4_table(), 1, begin + len(packet)) + packet + b"the table of packets"
    same(aedat4.decode(File(data, "a")).events, events)


def test_aedat4_cut_names_the_packet(writers):
    data = writers.aedat4(writers.make_events(50), 0)
    begin = len(data) - len(writers.aedat4_events(writers.make_events(50))) - 8
    with pytest.raises(UserError, match=f"breaks off inside the packet at byte {begin}"):
        aedat4.decode(File(data[:-1], "a"))


def test_aedat4_vector_larger_than_its_packet_takes_no_memory(writers):
    content = bytearray(writers.aedat4_events(writers.make_events(3)))
    assert struct.unpack_from("<I", content, 28) == (3,)
    struct.pack_into("<I", content, 28, 0x7FFFFFFF)
    data = writers.aedat4_header(writers.aedat4_table(("EVTS",)), 0) + struct.pack("<ii", 0, len(content)) + content
    with pytest.raises(UserError, match=r"is damaged .has a vector that reaches outside the buffer"):
        aedat4.decode(File(bytes(data), "a"))


@settings(deadline=None)
@given(
    data=st.binary(max_size=300) | st.lists(st.sampled_from([b"ab", b"abc", bytes(40), bytes(range(9))])).map(b"".join),
    block=st.sampled_from([7, 64, 65536]),
    stored=st.booleans(),
    sums=st.booleans(),
    size=st.booleans(),
)
def test_lz4_frames(data, block, stored, sums, size, writers):
    frame = writers.lz4_frame(data, block=block, stored=stored, sums=sums, size=size)
    assert lz4.decompress(frame) == data
    skipped = struct.pack("<II", 0x184D2A53, 3) + b"abc"
    assert lz4.decompress(frame + skipped + frame) == data + data


def test_lz4_long_runs_and_linked_blocks():
    literal = bytes(range(250)) * 4
    block = b"\xff" + bytes([255, 255, 255, 1000 - 15 - 765]) + literal + b"\x00\x01" + b"\xff\xff\xff\xff\x00"
    assert lz4.decompress(_frame(block)) == literal + (literal[-256:] * 6)[: 15 + 4 + 255 * 4]
    first, second = b"\x40abcd", b"\x00\x04\x00\x10x"
    assert lz4.decompress(_frame(first, second, linked=True)) == b"abcdabcdx"
    with pytest.raises(lz4.DamagedError, match="copies from where there is nothing"):
        lz4.decompress(_frame(first, second))


@pytest.mark.parametrize(
    "block",
    [b"\x10a\x00\x00", b"\x10a\x02\x00", b"\xf0", b"\x50abc", b"\x1fa\x01\x00" + b"\xff" * 300 + b"\x00", b"\x10a\x01"],
    ids=["offset 0", "before the start", "no length", "few literals", "larger than a block", "half an offset"],
)
def test_lz4_damage_is_found_before_memory_is_taken(block):
    with pytest.raises(lz4.DamagedError):
        lz4.decompress(_frame(block))


@pytest.mark.parametrize(
    "frame", [b"\x04\x22\x4d\x18", b"none at all", b"\x04\x22\x4d\x18\x00\x40\x00", b"\x04\x22\x4d\x18\x60\x30\x00"]
)
def test_lz4_headers_that_are_none(frame):
    with pytest.raises(lz4.DamagedError):
        lz4.decompress(frame)


def _frame(*blocks: bytes, linked: bool = False) -> bytes:
    body = b"".join(struct.pack("<I", len(block)) + block for block in blocks)
    return struct.pack("<IBBB", 0x184D2204, 0x40 if linked else 0x60, 4 << 4, 0) + body + bytes(4)


def test_negative_coordinates_are_outside_every_sensor(writers):
    content = bytearray(writers.aedat4_events(Events([1], [2], [3], [1])))
    struct.pack_into("<h", content, 40, -1)
    data = writers.aedat4_header(writers.aedat4_table(("EVTS",)), 0) + struct.pack("<ii", 0, len(content)) + content
    assert aedat4.decode(File(bytes(data), "a")).events.x.tolist() == [np.uint16(0xFFFF)]
