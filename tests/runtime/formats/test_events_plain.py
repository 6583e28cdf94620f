"""The formats of fixed records: N-MNIST, DAT, Event Stream, cochlea; their clocks, sizes and error sentences."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import UserError
from runtime.events import Events, read_recording
from runtime.events.formats import File, event_stream, nmnist
from runtime.events.formats.clock import unwrap


@pytest.mark.parametrize(
    ("folder", "reach", "side"),
    [
        ("N-MNIST", 34, 34),
        ("data/nmnist_mini", 34, 34),
        ("NMNIST", 35, None),
        ("FashionMNIST", 34, None),
        ("stmnist", 34, None),
        ("caltech", 34, None),
    ],
)
def test_nmnist_sensor_is_known_by_the_path_and_the_coordinates(folder, reach, side, writers):
    data = writers.nmnist(Events([0, 1], [0, reach - 1], [reach - 1, 0], [0, 1]))
    recording = nmnist.decode(File(data, f"/somewhere/{folder}/train/3/00001.bin"))
    assert (recording.width, recording.height) == (side, side)


def test_nmnist_overflow_rows_advance_the_clock(writers, same):
    stored = Events([10, 20, 20, 5, 30, 8], [1, 2, 0, 3, 0, 4], [1, 2, 240, 3, 240, 4], [1, 0, 0, 1, 0, 0])
    expected = Events([10, 20, 5 + 8192, 8 + 16384], [1, 2, 3, 4], [1, 2, 3, 4], [1, 0, 1, 0])
    same(nmnist.decode(File(writers.nmnist(stored), "a.bin")).events, expected)


@pytest.mark.parametrize(
    ("name", "suffix", "record"),
    [
        ("nmnist", "a.bin", 5),
        ("dat", "a.dat", 8),
        ("es", "a.es", 5),
        ("cochlea", "mono_34ch_ONOFF_addr2b_ts1.aedat", 6),
    ],
)
def test_a_cut_names_the_byte(name, suffix, record, tmp_path, writers):
    events = Events([1, 2, 3], [1, 2, 3], [0, 0, 0], [1, 0, 1])
    data = getattr(writers, name)(events)
    (tmp_path / suffix).write_bytes(data[:-2])
    with pytest.raises(UserError, match=f"breaks off inside the event at byte {len(data) - record}"):
        read_recording(tmp_path / suffix)


@given(st.lists(st.integers(0, 2**21 - 1), max_size=30), st.integers(0, 2**33))
def test_unwrap_counts_on(steps, start):
    values = start + np.cumsum(np.array([0, *steps]))
    loops = start >> 22 << 22
    assert unwrap(values & (1 << 22) - 1, 22).tolist() == (values - loops).tolist()


def test_unwrap_keeps_small_steps_back():
    assert unwrap(np.array([5, 3, 250, 4, 2], np.uint8), 8).tolist() == [5, 3, 250, 260, 258]
    assert unwrap(np.array([], np.uint8), 8).tolist() == []


def test_dat_clock_counts_on_after_71_minutes(tmp_path, writers):
    t = np.array([2**32 - 5, 2**32 + 1, 2**33 + 7])
    (tmp_path / "a.dat").write_bytes(writers.dat(Events(t, [1, 2, 3], [1, 2, 3], [1, 0, 1])))
    assert read_recording(tmp_path / "a.dat").events.t.tolist() == [2**32 - 5, 2**32 + 1, 2**32 + 7]


def test_dat_of_other_events_is_one_sentence(tmp_path, writers):
    (tmp_path / "a.dat").write_bytes(writers.dat(writers.make_events(), kind=14))
    with pytest.raises(UserError, match="holds events of type 14 with 8 bytes each, not change events"):
        read_recording(tmp_path / "a.dat")
    (tmp_path / "a.dat").write_bytes(b"% Version 2\n\x0c")
    with pytest.raises(UserError, match="breaks off at byte 13, before the event type"):
        read_recording(tmp_path / "a.dat")


@settings(deadline=None)
@given(
    gaps=st.lists(st.sampled_from([0, 1, 126, 127, 128, 254, 5000, 40_000]), max_size=80),
    size=st.sampled_from([8, 64, 65536]),
)
def test_es_records_of_both_lengths(gaps, size, writers):
    t = np.cumsum(np.array(gaps, np.int64))
    events = Events(t, np.arange(len(t)) % 34, np.arange(len(t)) % 30, np.arange(len(t)) % 3 == 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_stream, "CHUNK", size)
        read = event_stream.decode(File(writers.es(events), "a.es")).events
    for name in "txyp":
        np.testing.assert_array_equal(getattr(read, name), getattr(events, name))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"Event Stream\x02\x00\x00\x02", "is Event Stream 2.0.0 of type 2; only version 2 of type 1"),
        (b"Event Stream\x01\x00\x00\x01", "is Event Stream 1.0.0 of type 1"),
        (b"Event Stream\x02", "breaks off at byte 13 inside its 20-byte header"),
    ],
)
def test_es_of_other_kinds_is_one_sentence(head, message, tmp_path):
    (tmp_path / "a.es").write_bytes(head if len(head) < 16 else head + bytes(4))
    with pytest.raises(UserError, match=message):
        read_recording(tmp_path / "a.es")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("130Hz_mono_64ch_ONOFF_addr2b_ts02.aedat", (64, 1, 0.2, 6)),
        ("a_stereo_32ch_ONOFF_addr4b_ts1.aedat", (32, 2, 1.0, 8)),
        ("a_mono_16ch_ONOFF_addr2b_ts025.aedat", (16, 1, 0.25, 6)),
        ("a_mono_16ch_ONOFF_addr2b_ts10.aedat", (16, 1, 10.0, 6)),
    ],
)
def test_cochlea_names(name, expected, tmp_path):
    channels, ears, tick, record = expected
    last = ears * 2 * channels - 1
    rows = [(0, 7), (last, 2**32 - 1), (last, 2)]
    (tmp_path / name).write_bytes(b"".join(struct.pack(">HI" if record == 6 else ">II", *row) for row in rows))
    recording = read_recording(tmp_path / name)
    assert (recording.width, recording.height, recording.tick_us) == (channels, ears, tick)
    assert recording.events.x.tolist() == [0, channels - 1, channels - 1]
    assert recording.events.y.tolist() == [0, ears - 1, ears - 1]
    assert recording.events.t.tolist() == [7, 2**32 - 1, 2**32 + 2]

    (tmp_path / name).write_bytes(struct.pack(">HI" if record == 6 else ">II", last + 1, 7))
    with pytest.raises(UserError, match=f"event 0 has address {last + 1}, but .* end at {last}"):
        read_recording(tmp_path / name)


@pytest.mark.parametrize(
    "name",
    ["a.aedat", "mono_64ch_addr2b_ts1.aedat", "mono_64ch_ONOFF_addr3b_ts1.aedat", "mono_0ch_ONOFF_addr2b_ts1.aedat"],
)
def test_cochlea_names_that_say_too_little(name, tmp_path):
    (tmp_path / name).write_bytes(bytes(12))
    with pytest.raises(UserError, match="has no header, and its name does not say what its bytes mean; name it like"):
        read_recording(tmp_path / name)
