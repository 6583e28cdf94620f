"""EVT 2.0 and 3.0 against decoders that take one word at a time, on random words."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import UserError
from runtime.events import Events, read_recording
from runtime.events.formats import evt, evt3


def decode3(words) -> list[tuple[int, int, int, bool]]:
    """EVT 3.0, word by word."""
    y = low = high = base = on = None
    loops, events = 0, []
    for word in words:
        kind, value = word >> 12, word & 0xFFF
        placed = None not in (y, low, high)
        if kind == 0:
            y = value & 0x7FF
        elif kind == 6:
            low = value
        elif kind == 8:
            if high is not None and value < high - 2048:
                loops += 1
            high = value
        elif kind == 3:
            base, on = value & 0x7FF, value >> 11
        elif kind == 2 and placed:
            events.append((loops << 24 | high << 12 | low, value & 0x7FF, y, bool(value >> 11)))
        elif kind in (4, 5) and base is not None:
            for bit in range(12 if kind == 4 else 8):
                if placed and value >> bit & 1:
                    events.append((loops << 24 | high << 12 | low, base + bit, y, bool(on)))
            base += 12 if kind == 4 else 8
    return events


def decode2(words) -> list[tuple[int, int, int, bool]]:
    """EVT 2.0, word by word."""
    high, loops, events = None, 0, []
    for word in words:
        kind = word >> 28
        if kind == 8:
            value = word & 0x0FFFFFFF
            if high is not None and value < high - (1 << 27):
                loops += 1
            high = value
        elif kind < 2 and high is not None:
            t = (loops << 28 | high) << 6 | word >> 22 & 63
            events.append((t, word >> 11 & 0x7FF, word & 0x7FF, kind == 1))
    return events


def as_rows(events: Events) -> list[tuple[int, int, int, bool]]:
    return list(zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True))


words3 = st.lists(
    st.tuples(
        st.sampled_from([0, 2, 3, 4, 5, 6, 8, 7, 10, 14, 15]), st.sampled_from([0, 1, 0x3FF, 0x7FE, 0x801, 0xFFF])
    ).map(lambda word: word[0] << 12 | word[1]),
    max_size=60,
)


@settings(deadline=None)
@given(words=words3, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_evt3_is_the_word_by_word_decoder_however_it_is_cut(words, cuts):
    decoder, array = evt3.Decoder(), np.array(words, np.uint16)
    bounds = [0, *sorted(min(cut, len(words)) for cut in cuts), len(words)]
    parts = [decoder.feed(array[begin:end]) for begin, end in pairwise(bounds)]
    assert as_rows(Events.concatenate(parts)) == decode3(words)


def test_evt3_on_long_random_words(monkeypatch):
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 16, 50_000, np.uint16)
    whole = as_rows(evt3.Decoder().feed(words))
    # Bases that vectors have pushed on and on stop at the last column that fits.
    assert whole == [(t, min(x, 0xFFFF), y, p) for t, x, y, p in decode3(words.tolist())]
    monkeypatch.setattr(evt3, "CHUNK", 777)
    assert as_rows(evt3.Decoder().feed(words)) == whole


def test_evt3_step_back_of_time_low_is_no_overflow():
    # What a camera that starts mid-stream writes: 811, then 800, with no event between.
    words = [8 << 12 | 2861, 6 << 12 | 811, 6 << 12 | 800, 5, 2 << 12 | 9]
    assert as_rows(evt3.Decoder().feed(np.array(words, np.uint16))) == [(2861 << 12 | 800, 9, 5, False)]


def test_evt3_counts_on_after_sixteen_seconds():
    words = [5, 8 << 12 | 4095, 6 << 12 | 1, 2 << 12, 8 << 12, 6 << 12 | 2, 2 << 12]
    assert evt3.Decoder().feed(np.array(words, np.uint16)).t.tolist() == [4095 << 12 | 1, 1 << 24 | 2]


@settings(deadline=None)
@given(
    words=st.lists(
        st.tuples(st.sampled_from([0, 1, 8, 8, 10, 14]), st.integers(0, (1 << 28) - 1)).map(
            lambda w: w[0] << 28 | w[1]
        ),
        min_size=1,
        max_size=40,
    )
)
def test_evt2_is_the_word_by_word_decoder(words, tmp_path_factory):
    path = tmp_path_factory.mktemp("evt2") / "a.raw"
    path.write_bytes(b"% evt 2.0\n" + np.array(words, "<u4").tobytes())
    assert as_rows(read_recording(path).events) == decode2(words)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"% evt 3.0\n% geometry 640x480\n", ("3.0", 640, 480)),
        (b"% format EVT2;height=720;width=1280\n% end\n", ("2.0", 1280, 720)),
        (b"% evt 3.0\n% plugin_name hal_plugin_gen41_evk3\n", ("3.0", 1280, 720)),
        (b"% plugin_name hal_plugin_gen3_fx3\n% evt 2.0\n", ("2.0", 640, 480)),
        (b"% evt 3.0\r\n% sensor_generation 4.2\r\n", ("3.0", 1280, 720)),
        (b"% evt 3.0\n% sensor_name GenX320\n", ("3.0", 320, 320)),
        (b"% evt 2.1\n", ("2.1", None, None)),
        (b"% format EVT21;height=720;width=1280\n", ("2.1", 1280, 720)),
        (b"% Data file\n", (None, None, None)),
        (b"", (None, None, None)),
    ],
)
def test_headers(header, expected):
    found = evt.parse(header + b"%\x00\x01 binary that begins like a header line\n")
    assert (found.encoding, found.width, found.height) == expected and found.end == len(header)


def test_other_encodings_are_one_sentence(tmp_path):
    (tmp_path / "a.raw").write_bytes(b"% evt 2.1\n" + bytes(16))
    with pytest.raises(UserError, match=r"a.raw: is encoded as EVT 2.1, which is not read; convert it to EVT 3.0"):
        read_recording(tmp_path / "a.raw")


def test_a_raw_file_without_a_header_reads_when_told(tmp_path, writers, same):
    events = writers.make_events()
    (tmp_path / "a.raw").write_bytes(writers.evt3(events, b""))
    with pytest.raises(UserError, match=r"is named like EVT 2.0 or EVT 3.0 but does not begin like it"):
        read_recording(tmp_path / "a.raw")
    same(read_recording(tmp_path / "a.raw", format="evt3").events, events)


@pytest.mark.parametrize("name", ["evt2", "evt3"])
def test_a_cut_names_the_byte(name, tmp_path, writers):
    data = getattr(writers, name)(writers.make_events())
    (tmp_path / "a.raw").write_bytes(data[:-1])
    whole = len(data) - (4 if name == "evt2" else 2)
    with pytest.raises(UserError, match=f"breaks off inside the word at byte {whole}.*head -c {whole}"):
        read_recording(tmp_path / "a.raw")


@pytest.mark.parametrize("name", ["evt2", "evt3"])
def test_a_header_alone_is_a_recording_without_events(name, tmp_path):
    (tmp_path / "a.raw").write_bytes(f"% evt {name[3]}.0\n".encode())
    assert len(read_recording(tmp_path / "a.raw").events) == 0
