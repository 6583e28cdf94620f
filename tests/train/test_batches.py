"""Batches: the front end's items, padding, splits, windows, and randomness that any machine repeats."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from runtime.front_ends.token_dt import TokenDt
from train.augment import AugmentVision, Columns
from train.data.batch import collate, one_hot
from train.data.batches import Batches
from train.data.nmnist import NMNIST
from train.data.split import hold_out, windows

PREVIOUS, NEXT = (TokenDt("linear", 34, 34, dt, 2312) for dt in ("previous", "next"))


def columns(*rows: tuple[int, int, int, int]) -> Columns:
    return Columns(*np.array(rows, np.int64).reshape(-1, 4).T)


class Few:
    def __init__(self, count: int = 6) -> None:
        rng = np.random.default_rng(0)
        self.labels = np.arange(count) % 3
        self.names = [str(row) for row in range(count)]
        self.recordings = [
            Columns(np.sort(rng.integers(0, 9999, 50)), *rng.integers(0, 34, (2, 50)), rng.integers(0, 2, 50))
            for _ in range(count)
        ]

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, row: int) -> Columns:
        return self.recordings[row]


def test_collate_by_hand():
    recording = columns((1000, 3, 2, 1), (1500, 0, 0, 0), (4000, 1, 1, 0))
    previous = collate([recording], one_hot([1], 2), PREVIOUS, 4)
    assert previous.tokens.tolist() == [[3 + 68 + 1156, 0, 35, -1]]
    assert previous.dt.tolist() == [[0.0, 0.5, 2.5, 0.0]]
    assert previous.lengths.tolist() == [3]
    following = collate([recording], one_hot([1], 2), NEXT, 4)
    assert following.tokens.tolist() == [[3 + 68 + 1156, 0, -1, -1]]
    assert following.dt.tolist() == [[0.5, 2.5, 0.0, 0.0]]
    assert following.lengths.tolist() == [2]
    assert following.targets.tolist() == [[0.0, 1.0]]


def test_a_full_unit_is_padded_by_another():
    recording = columns(*((step, 0, 0, 0) for step in range(8)))
    assert collate([recording], one_hot([0], 1), PREVIOUS, 8).tokens.shape == (1, 16)
    assert collate([recording], one_hot([0], 1), NEXT, 8).tokens.shape == (1, 8)


def test_an_empty_recording_has_length_zero():
    batch = collate([columns()], one_hot([0], 1), PREVIOUS, 8)
    assert batch.lengths.tolist() == [0]
    assert (batch.tokens == -1).all()


def augmented(workers: int, epoch: int = 0, seed: int = 3) -> list:
    pipeline = AugmentVision(keep_events=(10, 40), time_jitter=5, max_roll=3)
    data = Batches(Few(), PREVIOUS, 3, 8, pipeline, cut_mix=0.5, seed=seed)
    data.epoch.fill_(epoch)
    order = torch.Generator().manual_seed(epoch)
    loader = DataLoader(data, 2, shuffle=True, generator=order, num_workers=workers, collate_fn=lambda batch: batch)
    return list(loader)


def test_batches_do_not_depend_on_workers():
    for alone, helped in zip(augmented(0), augmented(2), strict=True):
        for first, second in zip(alone, helped, strict=True):
            assert torch.equal(first, second)


def test_epochs_and_seeds_differ():
    first = augmented(0)[0].tokens
    assert first.shape != augmented(0, seed=4)[0].tokens.shape or not torch.equal(first, augmented(0, seed=4)[0].tokens)
    data = Batches(Few(), PREVIOUS, 3, 8, AugmentVision(time_jitter=500), seed=0)
    before = data.__getitems__([0, 1]).dt
    data.epoch.fill_(1)
    assert not torch.equal(before, data.__getitems__([0, 1]).dt)


@given(st.integers(0, 500), st.integers(1, 60), st.data())
def test_windows_cover_everything(count, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    cut = windows(count, size, overlap)
    assert {row for begin, end in cut for row in range(begin, end)} == set(range(count))
    for begin, end in cut[:-1]:
        assert end - begin == size
    for (first, _), (second, _) in itertools.pairwise(cut):
        assert second - first == size - overlap


def test_windows_of_the_published_run():
    assert windows(150_000, 65536, 32768) == [(0, 65536), (32768, 98304), (65536, 131072), (98304, 150_000)]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=100), st.floats(0, 0.99), st.integers(0, 10))
def test_hold_out_splits_every_class(labels, fraction, seed):
    labels = np.array(labels)
    stay, held = hold_out(labels, fraction, seed)
    assert sorted([*stay, *held]) == list(range(len(labels)))
    for label in np.unique(labels):
        count = int((labels == label).sum())
        assert (labels[held] == label).sum() == min(round(fraction * count), count - 1)
    again = hold_out(labels, fraction, seed)
    assert again[1].tolist() == held.tolist()


def test_training_leaves_out_the_last_batch_and_evaluation_nothing(made_up):
    data = NMNIST(root=str(made_up["nmnist"]), batch_size=7, eval_batch_size=7, validation_fraction=0.25)
    data.setup("fit")
    assert [len(batch.lengths) for batch in data.train_dataloader()] == [7] * 4
    assert [len(batch.lengths) for batch in data.val_dataloader()] == [7, 3]
