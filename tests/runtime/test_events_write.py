"""What is written is read again; what a format cannot hold is refused and leaves no file behind."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import UserError
from runtime.events import Events, Recording, read_recording, write_recording

ROWS = st.lists(
    st.tuples(
        st.integers(0, 2**23 - 1), st.integers(0, 255), st.integers(0, 255).filter(lambda y: y != 240), st.booleans()
    ),
    min_size=1,
    max_size=40,
)


def events_of(rows) -> Events:
    return Events(*(np.array(column) for column in zip(*rows, strict=True)))


@settings(deadline=None, max_examples=40)
@given(rows=ROWS, suffix=st.sampled_from([".npz", ".bin"]))
def test_round_trip(rows, suffix, tmp_path_factory):
    path = tmp_path_factory.mktemp("write") / f"a{suffix}"
    events = events_of(rows)
    write_recording(path, Recording(events))
    read = read_recording(path)
    for name in "txyp":
        np.testing.assert_array_equal(getattr(read.events, name), getattr(events, name))


def test_npz_keeps_what_is_known_of_the_sensor(tmp_path):
    events = Events([-(2**62), 2**62], [0, 65535], [65535, 0], [1, 0])
    write_recording(tmp_path / "a.npz", Recording(events, 700, 1, 0.2))
    read = read_recording(tmp_path / "a.npz")
    assert (read.width, read.height, read.tick_us) == (700, 1, 0.2)
    assert read.events.t.tolist() == [-(2**62), 2**62]
    write_recording(tmp_path / "a.npz", Recording(events))
    assert read_recording(tmp_path / "a.npz").width is None


def test_the_same_recording_is_the_same_file(tmp_path):
    recording = Recording(Events([1, 2], [3, 4], [5, 6], [0, 1]), 34, 34)
    for name in ("a.npz", "b.npz"):
        write_recording(tmp_path / name, recording)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    ("row", "tick", "message"),
    [
        ((2**23, 0, 0, 0), 1.0, "hold times from 0 to 8388607 us, but event 1 is t=8388608"),
        ((-1, 0, 0, 0), 1.0, "hold times from 0"),
        ((1, 256, 0, 0), 1.0, "hold x up to 255, but event 1 is t=1 x=256"),
        ((1, 0, 240, 0), 1.0, "hold y up to 255 but 240, but event 1"),
        ((1, 0, 0, 0), 0.2, "count microseconds, the recording's tick is 0.2 us; use .npz"),
    ],
)
def test_bin_refuses_what_it_cannot_hold(row, tick, message, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"before")
    with pytest.raises(UserError, match=message):
        write_recording(tmp_path / "a.bin", Recording(events_of([(0, 0, 0, 0), row]), tick_us=tick))
    assert (tmp_path / "a.bin").read_bytes() == b"before"


def test_other_suffixes_and_places(tmp_path):
    recording = Recording(Events([1], [2], [3], [1]))
    with pytest.raises(UserError, match=r"written as .npz or .bin, not as .raw"):
        write_recording(tmp_path / "a.raw", recording)
    with pytest.raises(UserError, match=r"written as .npz or .bin, not as a nameless type"):
        write_recording(tmp_path / "a", recording)
    with pytest.raises(UserError, match=r"cannot be written .No such file or directory"):
        write_recording(tmp_path / "none" / "a.npz", recording)
    (tmp_path / "b.npz").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_recording(tmp_path / "b.npz", recording)
    assert os.listdir(tmp_path) == ["b.npz"]


def test_the_file_has_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_recording(tmp_path / "a.npz", Recording(Events.empty()))
    assert (tmp_path / "a.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode
