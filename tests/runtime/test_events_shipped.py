"""The shipped mini set is a balanced, byte-exact selection that reads without any other file."""

from __future__ import annotations

import zipfile
from collections import Counter

import numpy as np
import pytest

from runtime.errors import UserError
from runtime.events.shipped import index, mini_set, samples


def test_it_is_small_and_balanced():
    assert mini_set().stat().st_size <= 3_600_000
    labels = {split: Counter(row["label"] for row in index() if row["split"] == split) for split in ("train", "test")}
    assert sum(labels["test"].values()) == 80
    assert len(labels["train"]) == 10 and len(set(labels["train"].values())) == 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_sample_is_what_the_index_says(split):
    rows = [row for row in index() if row["split"] == split]
    read = list(samples(split))
    assert len(read) == len(rows)
    for row, (label, recording) in zip(rows, read, strict=True):
        events = recording.events
        assert label == int(row["label"]) and len(events) == int(row["events"])
        assert (events.t[0], events.t[-1]) == (int(row["t_first_us"]), int(row["t_last_us"]))
        assert events.p.sum() == int(row["on_events"]) and (np.diff(events.t) >= 0).all()
        assert (recording.width, recording.height) == (34, 34)


def test_members_are_those_of_the_source(shared):
    with zipfile.ZipFile(mini_set()) as mini, zipfile.ZipFile(shared / "data/nmnist/nmnist_small.zip") as full:
        binaries = [name for name in mini.namelist() if name.endswith(".bin")]
        assert len(binaries) == len(index())
        assert all(mini.read(name) == full.read(name.replace("nmnist_mini", "nmnist_small", 1)) for name in binaries)
        licence = mini.read("nmnist_mini/NMNIST_LICENSE.md")
    assert licence == (mini_set().parent / "NMNIST_LICENSE.md").read_bytes()


def test_unknown_split_is_one_sentence():
    with pytest.raises(UserError, match="'validation' does not exist; choose one of train, test"):
        list(samples("validation"))


def test_damaged_sample_is_refused(tmp_path):
    with zipfile.ZipFile(mini_set()) as source, zipfile.ZipFile(tmp_path / "copy.zip", "w") as target:
        target.writestr("nmnist_mini/index.csv", source.read("nmnist_mini/index.csv"))
        row = index()[0]
        member = f"nmnist_mini/{row['split']}/{row['label']}/{int(row['sample']):05d}.bin"
        target.writestr(member, source.read(member)[:-5])
    with pytest.raises(UserError, match="not the file its index describes"):
        list(samples(row["split"], tmp_path / "copy.zip"))
