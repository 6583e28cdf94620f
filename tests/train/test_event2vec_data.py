"""Samples, batches and data sets of Event2Vec: what is drawn, what is held back, what leaks only when asked to."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from models.event2vec.presets import GESTURES
from runtime.errors import UserError
from train.augment import Columns
from train.event2vec.asl_dvs import ASLDVS
from train.event2vec.batch import collate
from train.event2vec.cluster import cluster
from train.event2vec.cluster import main as prepare
from train.event2vec.dvs_gesture import DVSGestureWindows
from train.event2vec.dvs_lip import DVSLipWindows
from train.event2vec.files import read
from train.event2vec.nmnist import NMNISTWindows
from train.event2vec.points import Points, draw


def points_of(count: int, seed: int = 0, **changed) -> Points:
    rng = np.random.default_rng(seed)
    columns = {"t": 100 + np.sort(rng.integers(0, 90_000, count)), "x": rng.integers(0, 128, count)}
    columns |= {"y": rng.integers(0, 128, count), "p": rng.integers(0, 2, count)} | changed
    return Points(**columns)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def places(sample: Points, whole: Points) -> np.ndarray:
    """Rows of `whole` that a sample took; its times have an origin of their own."""
    key = {(t, x, y): row for row, (t, x, y) in enumerate(zip(whole.t, whole.x, whole.y, strict=True))}
    begin = next(row for row in range(len(whole)) if (whole.x[row], whole.y[row]) == (sample.x[0], sample.y[0]))
    return np.array([key[t + whole.t[begin], x, y] for t, x, y in zip(sample.t, sample.x, sample.y, strict=True)])


def unique_points(count: int) -> Points:
    order = np.random.default_rng(0).permutation(count)
    return Points(100 + np.arange(count) * 3, order % 128, order // 128, np.ones(count, np.int64))


def test_samples_are_ordered_and_distinct_and_begin_at_time_zero():
    whole = unique_points(500)
    for sampler in ("random_sample", "span", "last"):
        for seed in range(20):
            sample = draw(whole, 60, sampler, rng(seed))
            rows = places(sample, whole)
            assert len(rows) == 60
            assert (np.diff(rows) > 0).all()
            assert sample.t[0] == 0
    assert np.array_equal(places(draw(whole, 60, "last", rng()), whole), np.arange(440, 500))


def test_spans_reach_from_runs_to_whole_recordings():
    whole = unique_points(500)
    extent = [np.ptp(places(draw(whole, 60, "span", rng(seed)), whole)) for seed in range(200)]
    assert min(extent) < 90
    assert max(extent) > 450
    assert min(np.ptp(places(draw(whole, 60, "random_sample", rng(s)), whole)) for s in range(50)) > 400


@pytest.mark.parametrize("every", [1, 3])
def test_runs_are_what_a_deployed_window_holds(every):
    """Windows of a stream with this `every`, at any moment for `run` and at the end for `last`."""
    whole = unique_points(500)
    ends = np.arange(every * 60, 501, every) - 1
    wanted = {tuple(range(end - every * 59, end + 1, every)) for end in range(every * 60 - every, 500)}
    begins = set()
    for seed in range(300):
        rows = tuple(places(draw(whole, 60, "run", rng(seed), every), whole).tolist())
        assert rows in wanted
        begins.add(rows[0])
    assert len(begins) > 150 and {begin % every for begin in begins} == set(range(every))
    last = places(draw(whole, 60, "last", rng(), every), whole)
    assert np.array_equal(last, np.arange(ends[-1] - every * 59, ends[-1] + 1, every))


@pytest.mark.parametrize("sampler", ["random_sample", "span", "run", "last", "none"])
def test_short_recordings_are_taken_whole(sampler):
    whole = points_of(40)
    sample = draw(whole, 60, sampler, rng())
    assert np.array_equal(sample.t, whole.t - whole.t[0])
    assert np.array_equal(sample.x, whole.x)


def test_batches_are_padded_at_their_ends_with_minus_one():
    samples = [points_of(30), points_of(17, 1)]
    batch = collate(samples, np.eye(2, dtype=np.float32), [4, 7], multiple=8)
    assert batch.mask.shape == (2, 32)
    assert batch.mask.sum(1).tolist() == [30, 17]
    for value in (batch.p, batch.y, batch.x, batch.t):
        assert (value[~batch.mask] == -1).all()
    assert np.array_equal(batch.x[1, :17].numpy(), samples[1].x)
    assert batch.intensity is None
    assert len(batch.inputs) == 5
    assert batch.whole
    weighted = [points_of(9, intensity=np.arange(9)), points_of(4, intensity=np.ones(4))]
    padded = collate(weighted, np.eye(2, dtype=np.float32), [0, 1])
    assert padded.intensity[1].tolist() == [1, 1, 1, 1, -1, -1, -1, -1, -1]


def options(**more):
    return {"batch_size": 8, "eval_batch_size": 5, "seed": 0} | more


def test_asl_dvs_is_cut_by_file_name_and_holds_back_part_of_training(made_up):
    data = ASLDVS(str(made_up["asl_dvs"]), 50, val_repeats=3, validation_fraction=0.25, **options())
    data.setup("fit")
    data.setup("test")
    names = {name: set(batches.source.names) for name, batches in data.splits.items()}
    assert {name: len(value) for name, value in names.items()} == {"train": 72, "validation": 24, "test": 48}
    assert not names["train"] & names["validation"]
    assert not (names["train"] | names["validation"]) & names["test"]
    assert all(name.endswith(("_0005.npz", "_0006.npz")) for name in names["test"])
    assert len(data.splits["validation"]) == 72
    assert len(data.splits["test"]) == 48


def test_asl_dvs_leaks_only_when_told_to_and_then_as_published(made_up, capsys):
    data = ASLDVS(
        str(made_up["asl_dvs"]),
        50,
        leak_training_into_validation=True,
        val_repeats=10,
        validation_fraction=0,
        **options(),
    )
    data.setup("fit")
    assert "validation leaks" in capsys.readouterr().out
    training, validation = (data.splits[name].source.names for name in ("train", "validation"))
    # Six files a letter: 4 to train, and 12 entries, two copies of each file, to validate.
    assert (len(training), len(validation)) == (96, 24 * 12)
    assert all(validation.count(name) == 2 for name in set(validation))
    assert sum(name in set(training) for name in validation) == 24 * 8
    assert len(data.splits["validation"]) == 24 * 12


def test_gestures_are_numbered_in_the_order_of_folder_names_as_text(made_up):
    data = DVSGestureWindows(str(made_up["dvs_gesture"]), 64, **options())
    data.prepare_data()
    source = data.open_split("train")
    assert data.labels == GESTURES
    for file, label in zip(source.files, source.labels, strict=True):
        assert sorted(range(11), key=str)[label] == int(file.parent.name)


def test_draws_are_new_in_training_and_repeat_in_validation(made_up):
    data = NMNISTWindows(str(made_up["nmnist"]), 64, val_repeats=2, validation_fraction=0.25, **options())
    data.setup("fit")
    train, validation = data.splits["train"], data.splits["validation"]
    assert len(validation) == 2 * len(validation.source)
    first, again = train[3], train[3]
    assert torch.equal(first.t, again.t)
    data.set_epoch(1)
    assert not torch.equal(first.t, train[3].t)
    alone, repeat = validation[1], validation[1 + len(validation.source)]
    assert not torch.equal(alone.t, repeat.t)
    together = validation.__getitems__([0, 1])
    assert torch.equal(together.t[1], alone.t[0])


def test_clusters_keep_every_event_and_their_order():
    for seed, p in ((0, 0.3), (1, 0.5)):
        whole = points_of(300, seed, p=(np.random.default_rng(seed).random(300) < p).astype(np.int64))
        made = cluster(whole, 40)
        assert len(made) == 40
        assert made.intensity.sum() == 300
        assert made.p.sum() == int(whole.p.mean() * 40)
        assert (np.diff(made.t) >= 0).all()
        assert 0 <= made.t[0] < made.t[-1] <= 1
        assert made.x.max() <= 127
        assert (made.x % 1 > 0).any()
        weighted = (made.x * made.intensity).sum() / 300
        assert weighted == pytest.approx(whole.x.mean(), abs=1e-9)


def test_clusters_of_short_recordings_are_their_events():
    whole = points_of(30)
    made = cluster(whole, 40)
    assert np.array_equal(made.t, whole.t)
    assert (made.intensity == 1).all()


@pytest.mark.parametrize("on", [0, 1])
def test_one_polarity_gets_all_clusters(on):
    made = cluster(points_of(100, p=np.full(100, on)), 10)
    assert len(made) == 10
    assert (made.p == bool(on)).all()


def test_a_rare_polarity_keeps_one_cluster():
    p = np.zeros(100, np.int64)
    p[50] = 1
    made = cluster(points_of(100, p=p), 10)
    assert made.p.sum() == 1
    assert made.intensity.sum() == 100


def test_events_that_coincide_make_no_empty_clusters():
    few = np.random.default_rng(0).integers(0, 3, (3, 200))
    whole = Points(np.sort(few[0]), few[1], few[2], few[1] > 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = cluster(whole, 150)
    assert len(made) < 150
    assert made.intensity.min() >= 1
    assert made.intensity.sum() == 200


def test_an_interrupted_prepare_leaves_nothing_that_would_be_read(tmp_path, monkeypatch):
    whole, folder = points_of(50), tmp_path / "train" / "word"
    folder.mkdir(parents=True)
    np.savez(folder / "1.npz", t=whole.t, x=whole.x, y=whole.y, p=whole.p)

    def half(file, **columns):
        file.write(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(KeyboardInterrupt):
        prepare(["cluster", "--root", str(tmp_path), "--clusters", "10"])
    assert not [path for path in (tmp_path / "kmeans_10").rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.uint64, np.float64])
def test_recordings_out_of_order_are_sorted_whatever_their_times_are(kind, tmp_path):
    t = np.array([5, 3, 9, 3], kind)
    np.savez(tmp_path / "a.npz", t=t, x=np.arange(4), y=np.arange(4), p=np.ones(4))
    found = read(tmp_path / "a.npz")
    assert found.t.tolist() == [3, 3, 5, 9]
    assert found.x.tolist() == [1, 3, 0, 2]


def test_equal_times_cannot_be_clustered(tmp_path):
    with pytest.raises(UserError, match="all have the same time"):
        cluster(points_of(50, t=np.full(50, 7)), 10)
    folder = tmp_path / "train" / "word"
    folder.mkdir(parents=True)
    same = points_of(50, t=np.full(50, 7))
    np.savez(folder / "1.npz", t=same.t, x=same.x, y=same.y, p=same.p)
    with pytest.raises(UserError, match=r"1\.npz: its 50 events all have the same time"):
        prepare(["cluster", "--root", str(tmp_path), "--clusters", "10"])
    assert not list(tmp_path.rglob("*.npy.npz"))


@pytest.mark.parametrize("broken", ["text", "without", "uneven"])
def test_files_without_what_is_needed_are_named(tmp_path, broken):
    file = tmp_path / "a.npz"
    if broken == "text":
        file.write_text("nothing")
    else:
        extra = {"intensity": np.ones(2)} if broken == "uneven" else {}
        np.savez(file, t=np.arange(3), x=np.arange(3), y=np.arange(3), p=np.ones(3), **extra)
    with pytest.raises(UserError, match=r"a\.npz"):
        read(file, weighted=True)


def test_missing_sets_say_how_to_make_them(tmp_path):
    for kind, hint in ((ASLDVS, "generate asl_dvs"), (DVSGestureWindows, "generate dvs_gesture")):
        with pytest.raises(UserError, match=hint):
            kind(str(tmp_path)).open_split("train")
    with pytest.raises(UserError, match="generate dvs_lip"):
        DVSLipWindows(str(tmp_path)).open_split("train")
    with pytest.raises(UserError, match="prepare cluster"):
        DVSLipWindows(str(tmp_path), clusters=True).open_split("train")


@pytest.mark.parametrize("change", [{"sampler": "all"}, {"train_repeats": 0}, {"eval_sampler": "first"}])
def test_impossible_sampling_is_refused(change):
    with pytest.raises(UserError):
        NMNISTWindows("auto", 64, **change)


def test_columns_become_points_unchanged(tmp_path: Path):
    columns = Columns(*(np.arange(3) for _ in "txyp"))
    assert Points.of(columns).t is columns.t
    assert Points.of(Points.of(columns)).intensity is None
