"""Every format: what was written is read, in whatever way it is found; what is broken is one sentence."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from runtime.errors import UserError
from runtime.events import Recording, read_recording
from runtime.events.formats import FORMATS, File

SIZES = {"nmnist": (None, None), "aedat2": (128, 128), "aedat3": (128, 128), "npy": (None, None), "mat": (None, None)}


def test_it_reads_what_was_written(written, same):
    name, path, events = written
    recording = read_recording(path)
    same(recording.events, events)
    assert recording.format == name and recording.source == str(path) and recording.tick_us == 1.0
    assert (recording.width, recording.height) == SIZES.get(name, (34, 2 if name == "cochlea" else 30))


def test_every_format_is_tested(writers):
    assert set(writers.WRITERS) == {kind.name for kind in FORMATS}


def test_content_decides_before_the_suffix(written, same):
    name, path, events = written
    other = path.rename(path.with_suffix(".dump"))
    if name in ("nmnist", "cochlea"):
        with pytest.raises(UserError, match="is of no known format; name it with --format if it is one of evt2"):
            read_recording(other)
    else:
        same(read_recording(other).events, events)
    same(read_recording(other, format=name).events, events)


def test_a_zip_member_reads_like_a_file(written, same, tmp_path):
    name, path, events = written
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, f"some/{path.name}")
    for mark in ":!":
        recording = read_recording(f"{tmp_path / 'all.zip'}{mark}some/{path.name}")
        same(recording.events, events)
        assert recording.format == name


def test_what_the_caller_knows_wins(written):
    _, path, _ = written
    recording = read_recording(path, size=(400, 300), tick_us=0.5)
    assert (recording.width, recording.height, recording.tick_us) == (400, 300, 0.5)


def test_an_empty_file_is_one_sentence(written):
    _, path, _ = written
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"is empty \(0 bytes\)"):
        read_recording(path)


@pytest.fixture
def refused_or_read(written):
    """Decodes bytes as the format they are a broken form of, without the file system in between."""
    name, path, _ = written
    (kind,) = (kind for kind in FORMATS if kind.name == name)

    def check(data: bytes) -> None:
        try:
            recording = kind.decode(File(data, str(path)))
        except UserError as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert isinstance(recording, Recording)
        assert sum(bool(other.recognises and other.recognises(data)) for other in FORMATS) <= 1

    return check


def test_any_cut_is_read_or_refused(written, refused_or_read):
    data = written[1].read_bytes()
    rng = np.random.default_rng(1)
    for length in {*range(1, min(len(data), 300)), *rng.integers(1, len(data), 300).tolist()}:
        refused_or_read(data[:length])


def test_any_damage_is_read_or_refused(written, refused_or_read):
    data = np.frombuffer(written[1].read_bytes(), np.uint8)
    rng = np.random.default_rng(2)
    for turn in range(1000):
        damaged = data.copy()
        # Half of the damage goes to where headers and sizes are.
        reach = len(data) if turn % 2 else min(len(data), 200)
        places = rng.integers(0, reach, rng.integers(1, 6))
        damaged[places] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, *rng.integers(0, 256, 5)], len(places))
        refused_or_read(damaged.tobytes())


def test_noise_is_read_or_refused(written, refused_or_read):
    begin = written[1].read_bytes()[:64]
    for seed in range(100):
        rng = np.random.default_rng(seed)
        noise = rng.integers(0, 256, rng.integers(1, 3000), np.uint8).tobytes()
        refused_or_read(noise)
        refused_or_read(begin + noise)
