"""Every data set is read in every layout it claims, from files of exactly that layout."""

from __future__ import annotations

import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import UserError
from train.augment import Columns
from train.data import aedat31
from train.data.dvs_gesture import DVSGesture
from train.data.dvs_lip import DVSLip
from train.data.generate import main as generate
from train.data.generate import spot
from train.data.nmnist import NMNIST, find
from train.data.shd import SHD
from train.data.ssc import SSC

SMALL = {"batch_size": 2, "eval_batch_size": 3, "pad_unit": 64}


def opened(data):
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def same(first: Columns, second: Columns) -> None:
    for name in "txyp":
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize(
    ("name", "kind", "classes", "options"),
    [
        ("shd", SHD, 20, {"validation_fraction": 0.5}),
        ("ssc", SSC, 35, {}),
        ("dvs_gesture", DVSGesture, 11, {"slice_events": 200, "slice_overlap": 100, "validation_fraction": 0.4}),
        ("dvs_lip", DVSLip, 100, {"validation_fraction": 0.5}),
        ("nmnist", NMNIST, 10, {"validation_fraction": 0.25}),
    ],
)
def test_every_set_gives_batches(made_up, name, kind, classes, options):
    data = opened(kind(root=str(made_up[name]), **SMALL, **options))
    assert len(data.labels) == classes
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batch = next(iter(loader))
        size, length = batch.tokens.shape
        assert length % 64 == 0
        assert length > int(batch.lengths.max())
        assert batch.targets.shape == (size, classes)
        assert int(batch.tokens.max()) < data.front_end.vocabulary
        assert int(batch.tokens.min()) == -1
        for row, count in enumerate(batch.lengths.tolist()):
            assert (batch.tokens[row, :count] >= 0).all()
            assert (batch.tokens[row, count:] == -1).all()
            assert (batch.dt[row, count:] == 0).all()
    seen = sum(len(batch.lengths) for batch in data.test_dataloader())
    assert seen == len(data.splits["test"])


def test_heidelberg_reads_seconds_units_and_keys(made_up):
    data = SHD(root=str(made_up["shd"]), **SMALL)
    data.setup("test")
    source = data.splits["test"].source
    rng = np.random.default_rng(0)
    for label in np.repeat(np.arange(20), 2):
        spot(rng, int(label), 300, 700, 1, 1_000_000)  # the train split, drawn first
    expected = spot(rng, 0, 300, 700, 1, 1_000_000)
    np.testing.assert_allclose(source[0].t, expected.t, atol=1)
    assert source[0].x.tolist() == expected.x.tolist()
    assert data.labels[3] == "word3"


def test_heidelberg_takes_half_precision_times(tmp_path):
    import h5py

    with h5py.File(tmp_path / "shd_test.h5", "w") as file:
        times = file.create_dataset("spikes/times", (1,), h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (1,), h5py.vlen_dtype(np.uint16))
        times[0], units[0] = np.array([0.0625, 0.5], np.float16), np.array([3, 699], np.uint16)
        file["labels"] = np.array([19], np.uint16)
    data = SHD(root=str(tmp_path), **SMALL)
    data.setup("test")
    sample = data.splits["test"].source[0]
    assert sample.t.tolist() == [62_500, 500_000]
    assert sample.x.tolist() == [3, 699]
    assert data.labels[19] == "19"


def test_gesture_layouts_agree(made_up, tmp_path):
    original = opened(DVSGesture(root=str(made_up["dvs_gesture"]), **SMALL))
    trials = original.splits["test"].source
    assert len(trials) == 3 * 11
    # The npz layout is what the trials were cut into.
    npz = tmp_path / "npz"
    shutil.copytree(made_up["dvs_gesture"] / "DvsGesture" / "trials", npz)
    same(opened(DVSGesture(root=str(npz), **SMALL)).splits["test"].source[5], trials[5])
    # The npy layout keeps milliseconds.
    for split, folder in (("train", "ibmGestureTrain"), ("test", "ibmGestureTest")):
        source = original.open_split(split)
        for row, file in enumerate(source.files):
            user, number = file.stem.rsplit("_", 1)
            target = tmp_path / "npy" / "DVSGesture" / folder / user / f"{number}.npy"
            target.parent.mkdir(parents=True, exist_ok=True)
            events = source[row]
            np.save(target, np.stack([events.x, events.y, events.p, events.t // 1000], 1).astype(np.float32))
    npy = opened(DVSGesture(root=str(tmp_path / "npy"), **SMALL)).splits["test"].source
    assert len(npy) == len(trials)
    first = next(row for row in range(len(npy)) if npy.labels[row] == 0)
    assert (npy[first].t % 1000 == 0).all()
    assert npy[first].x.tolist() == trials[0].x.tolist()
    assert npy.count(first) == len(npy[first])
    assert trials.count(3) == len(trials[3])


def test_gesture_holds_whole_recordings_back(made_up):
    data = opened(
        DVSGesture(
            root=str(made_up["dvs_gesture"]), slice_events=100, slice_overlap=50, validation_fraction=0.4, **SMALL
        )
    )
    trained = {name.partition("[")[0] for name in data.splits["train"].source.names}
    held = set(data.splits["validation"].source.names)
    assert not trained & held
    assert len(trained) + len(held) == 33


def test_aedat_keeps_valid_polarity_events_only(tmp_path):
    file = tmp_path / "a.aedat"
    polarity = struct.pack("<IIII", (5 << 17) | (7 << 2) | 2 | 1, 10, (6 << 17) | (8 << 2), 11)
    other = struct.pack("<HHIIIIII", 0, 1, 8, 4, 0, 1, 1, 1) + bytes(8)
    packet = struct.pack("<HHIIIIII", 1, 1, 8, 4, 3, 2, 2, 1) + polarity
    file.write_bytes(b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n" + other + packet)
    events = aedat31.read(file)
    assert [int(column[0]) for column in (events.t, events.x, events.y, events.p)] == [(3 << 31) + 10, 5, 7, 1]
    assert len(events) == 1
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(UserError, match="breaks off"):
        aedat31.read(file)


def test_aedat_writes_what_it_reads(tmp_path):
    events = spot(np.random.default_rng(0), 4, 10_000, 128, 128, 10**6)
    aedat31.write(tmp_path / "a.aedat", events)
    same(aedat31.read(tmp_path / "a.aedat"), events)


def test_nmnist_folder_and_zip_agree(made_up, tmp_path):
    root = made_up["nmnist"]
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in root.rglob("*.bin"):
            file.write(path, f"nmnist_small/{path.relative_to(root).as_posix().lower()}")
    first, second = (opened(NMNIST(root=str(place), **SMALL)).splits["test"].source for place in (root, archive))
    assert len(first) == len(second) == 40
    assert first.labels.tolist() == second.labels.tolist()
    same(first[17], second[17])


def test_nmnist_takes_some_digits_in_the_order_given(made_up):
    every = opened(NMNIST(root=str(made_up["nmnist"]), **SMALL)).splits["test"].source
    data = opened(NMNIST(root=str(made_up["nmnist"]), classes=[7, 3], validation_fraction=0.25, **SMALL))
    assert data.labels == ("7", "3")
    some = data.splits["test"].source
    wanted = [
        (name, [7, 3].index(label)) for name, label in zip(every.names, every.labels, strict=True) if label in (3, 7)
    ]
    assert list(zip(some.names, some.labels, strict=True)) == wanted
    assert len(some) == 8
    same(some[0], every[every.names.index(some.names[0])])
    assert next(iter(data.train_dataloader())).targets.shape == (2, 2)
    assert set(data.splits["validation"].source.labels.tolist()) == {0, 1}


@pytest.mark.parametrize("classes", [[], [4], [3, 3], [3, 10], [-1, 3]])
def test_nmnist_refuses_digits_it_does_not_have(classes):
    with pytest.raises(UserError, match="two or more different digits"):
        NMNIST(classes=classes)


def test_nmnist_says_so_when_the_set_lacks_the_digits(made_up, tmp_path):
    for split in ("Train", "Test"):
        shutil.copytree(made_up["nmnist"] / split / "5", tmp_path / split / "5")
    with pytest.raises(UserError, match=r"no train samples of the digits \[3, 7\]"):
        opened(NMNIST(root=str(tmp_path), classes=[3, 7], **SMALL))


def test_nmnist_finds_the_shipped_set_last(tmp_path, monkeypatch):
    monkeypatch.delenv("NEUROCOMPILE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find().name == "nmnist_mini.zip"
    (tmp_path / "data" / "NMNIST").mkdir(parents=True)
    assert find() == Path("data/NMNIST")
    monkeypatch.setenv("NEUROCOMPILE_DATA", str(tmp_path / "other"))
    (tmp_path / "other" / "nmnist").mkdir(parents=True)
    assert find() == tmp_path / "other" / "nmnist"


@pytest.mark.parametrize("kind", [SHD, SSC, DVSGesture, DVSLip, NMNIST])
def test_a_missing_set_is_one_sentence(kind, tmp_path):
    data = kind(root=str(tmp_path / "nowhere"), **SMALL)
    with pytest.raises(UserError) as error:
        opened(data)
    assert "\n" not in str(error.value)
    assert str(tmp_path / "nowhere") in str(error.value)


def test_generate_refuses_a_folder_in_use(tmp_path):
    (tmp_path / "real.bin").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        generate(["nmnist", "--root", str(tmp_path)])


def test_validating_on_test_must_be_asked_for(made_up):
    plain = opened(NMNIST(root=str(made_up["nmnist"]), validation_fraction=0.25, **SMALL))
    assert not set(plain.splits["validation"].source.names) & set(plain.splits["test"].source.names)
    asked = opened(NMNIST(root=str(made_up["nmnist"]), validate_on_test=True, **SMALL))
    assert asked.splits["validation"].source.names == asked.splits["test"].source.names


def test_too_little_data_for_a_batch(made_up):
    with pytest.raises(UserError, match="do not fill one batch"):
        opened(NMNIST(root=str(made_up["nmnist"]), batch_size=1000))
