"""Paths: what a missing, foreign or unreadable file is called, and what a path may name."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from runtime.errors import UserError
from runtime.events import Events, Recording, read_recording, write_recording
from runtime.events.formats import FORMATS


@pytest.fixture
def recording() -> Recording:
    return Recording(Events([3, 5], [1, 2], [3, 4], [True, False]), 34, 34)


def test_missing_files(tmp_path):
    for path in (tmp_path / "none.bin", f"{tmp_path}/none.zip:a.bin", f"{tmp_path}/none.mat:3"):
        with pytest.raises(UserError, match=r"none\.\w+.*: no such file; check the path"):
            read_recording(path)


def test_folders(tmp_path):
    (tmp_path / "a.zip").mkdir()
    with pytest.raises(UserError, match="is a folder; name one recording inside it"):
        read_recording(tmp_path)
    with pytest.raises(UserError, match=r"a\.zip: is a folder"):
        read_recording(f"{tmp_path}/a.zip:b.bin")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"12345")
    (tmp_path / "a.bin").chmod(0)
    with pytest.raises(UserError, match=r"cannot be read .Permission denied"):
        read_recording(tmp_path / "a.bin")


@pytest.mark.parametrize("path", ["a\0b.bin", "a" * 5000 + ".bin"])
def test_paths_that_cannot_be(path):
    with pytest.raises(UserError, match="cannot be read"):
        read_recording(path)


def test_unknown_formats_list_the_known(tmp_path):
    (tmp_path / "a.txt").write_text("0 1 2 3\n")
    with pytest.raises(UserError) as caught:
        read_recording(tmp_path / "a.txt")
    assert all(f"{kind.name} ({kind.title})" in str(caught.value) for kind in FORMATS)
    with pytest.raises(UserError, match="format 'text' does not exist; choose one of evt2"):
        read_recording(tmp_path / "a.txt", format="text")


@pytest.mark.parametrize("name", ["a.raw", "a.es", "a.dat", "a.aedat4", "a.bag", "a.npy"])
def test_a_suffix_without_its_beginning(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x01\x02\x03\x04\x05\x06")
    with pytest.raises(UserError, match=r"is named like .* but does not begin like it"):
        read_recording(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 5)}, r"sensor size \(0, 5\) is not possible"),
        ({"size": (1, 2, 3)}, "is not possible"),
        ({"size": (70_000, 5)}, "is not possible"),
        ({"tick_us": 0}, "a tick of 0 us is not possible"),
        ({"tick_us": float("nan")}, "a tick of nan us is not possible"),
    ],
)
def test_impossible_options(options, message, tmp_path, recording):
    write_recording(tmp_path / "a.npz", recording)
    with pytest.raises(UserError, match=message):
        read_recording(tmp_path / "a.npz", **options)


def test_archives(tmp_path, recording):
    write_recording(tmp_path / "b.bin", recording)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
        archive.write(tmp_path / "b.bin", "in/b.bin")
    with pytest.raises(UserError, match=r"name one recording in it as archive.zip:member; it holds 1 .*'in/b.bin'"):
        read_recording(path)
    with pytest.raises(UserError, match=r"has no member 'c.bin'; it holds 1 recordings, for example 'in/b.bin'"):
        read_recording(f"{path}:c.bin")
    assert len(read_recording(f"{path}:in/b.bin").events) == 2

    data = bytearray(path.read_bytes())
    data[data.index((tmp_path / "b.bin").read_bytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"member 'in/b.bin' cannot be read .Bad CRC-32"):
        read_recording(f"{path}:in/b.bin")
    path.write_bytes(data[:40])
    with pytest.raises(UserError, match=r"cannot be read .File is not a zip file"):
        read_recording(f"{path}:in/b.bin")


def test_a_file_whose_name_looks_like_a_member(tmp_path, recording):
    write_recording(tmp_path / "a.zip:b.bin", recording)
    assert len(read_recording(tmp_path / "a.zip:b.bin").events) == 2


def test_columns_take_only_what_fits():
    events = Events([1, 2], np.array([0, 65535]), [1.0, 2.0], np.array([-1, 1]))
    assert events.p.tolist() == [False, True] and events.x.tolist() == [0, 65535]
    for column, message in (
        (("t", [0.5, 1]), "column t is not whole numbers"),
        (("t", [float("nan"), 1]), "column t goes from nan"),
        (("t", [2.0**63, 1]), "column t goes from 1.0 to"),
        (("x", [-1, 0]), "column x goes from -1 to 0; it must be 0 to 65535"),
        (("y", [0, 65536]), "column y goes from 0 to 65536"),
        (("p", ["on", "off"]), "column p is of type"),
    ):
        with pytest.raises(UserError, match=message):
            Events(**{"t": [1, 2], "x": [0, 0], "y": [0, 0], "p": [0, 1], column[0]: column[1]})
    with pytest.raises(ValueError, match=r"column y has shape \(1,\), expected \(2,\)"):
        Events([1, 2], [0, 0], [0], [0, 1])


def test_importing_brings_nothing_but_numpy():
    code = "import sys, runtime.events as e; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "onnx", "onnxruntime", "scipy", "h5py", "lz4", "neurocompile", "models"} & set(loaded)
