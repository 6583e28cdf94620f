"""The published augmentations: the reference's results where nothing is random, stated ranges where something is."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from runtime.errors import UserError
from train.event2vec.batch import EventBatch
from train.event2vec.transforms import Policy, parse, policy
from train.event2vec.transforms.field import Field
from train.event2vec.transforms.grammar import ITEMS

H = W = 128


def batch_of(length: int = 200, samples: int = 3, valid: int | None = None) -> EventBatch:
    draw = torch.Generator().manual_seed(0)
    y, x = (torch.randint(0, H, (samples, length), generator=draw).float() for _ in range(2))
    p = torch.randint(0, 2, (samples, length), generator=draw).float()
    t = torch.randint(0, 90, (samples, length), generator=draw).cumsum(1).double()
    mask = torch.ones(samples, length, dtype=torch.bool)
    if valid is not None:
        mask[:, valid:] = False
    return EventBatch(p, y, x, t, mask, None, torch.zeros(samples, 2), torch.arange(samples))


def run(items: str, batch: EventBatch, seed: int = 0) -> EventBatch:
    return policy(items)(batch, torch.Generator().manual_seed(seed))


def on_domain(batch, height: int, width: int):
    """The step that follows in the network: rounded to pixels, events outside are flagged."""
    p, y, x = (value.round() for value in (batch.p, batch.y, batch.x))
    return p, y, x, batch.mask & (y >= 0) & (y < height) & (x >= 0) & (x < width)


def test_cases_without_randomness_equal_the_reference(golden):
    stored = golden.arrays("event2vec_transforms")
    columns = {name: torch.from_numpy(stored[name]).float() for name in "pyxt"}
    mask = torch.from_numpy(stored["valid_mask"])
    batch = EventBatch(**columns, mask=mask, intensity=None, targets=torch.zeros(2, 2), rows=torch.arange(2))
    cases = {str(number): (case, H, W) for number, case in enumerate(json.loads(str(stored["cases"])))}
    cases["hw"] = ("Resize-128,128-64,96", 64, 96)
    for name, (case, height, width) in cases.items():
        done = run(case, batch)
        p, y, x, left = on_domain(done, height, width)
        assert torch.equal(left, torch.from_numpy(stored[f"{name}/valid_mask"])), case
        assert torch.equal(done.t, torch.from_numpy(stored[f"{name}/t"]).float()), case
        for got, key in ((p, "p"), (y, "y"), (x, "x")):
            wanted = torch.from_numpy(stored[f"{name}/{key}"]).float()
            # A coordinate halfway between two pixels may be rounded either way where angles are involved.
            assert (got[left] - wanted[left]).abs().max() <= (1e-5 if "Rotation" not in case else 1), (case, key)
            assert ((got[left] - wanted[left]).abs() > 1e-5).float().mean() <= 0.02, (case, key)


def test_nothing_is_changed_in_place():
    for items in (
        "RandomResize-0.8,1.2-0.8,1.2/RandomRotation-128,128-15/RandomShear-0.05,0.05/RandomHorizontalFlip-128-0.5",
        "RandomTranslate-16,16/RandomErasing-128,128-0.9-16,16/RandomChunkDrop-8,256/RandomDrop-0.3",
        "RandomChunkWrap-4,20-0.5,2/RandomTemporalWrap-0.5,2/RandomPolarityFlip-0.5/RandomReplaceByNoise-128,128-0.3",
        "Crop-10,90-20,100/CenterCrop-128,128-64/RandomCropResize-128,128-64/DiscardTail-1,1/PositionalNorm-128,128",
    ):
        batch = batch_of()
        before = [value.clone() for value in batch[:5]]
        done = run(items, batch)
        assert all(torch.equal(*pair) for pair in zip(batch[:5], before, strict=True))
        assert any(not torch.equal(*pair) for pair in zip(done[:5], before, strict=True))


def test_parameters_are_drawn_per_sample_within_their_ranges():
    batch = batch_of(samples=400, length=2)
    done = run("RandomTranslate-3,5", batch)
    down, right = done.y - batch.y, done.x - batch.x
    torch.testing.assert_close(down[:, 0], down[:, 1], rtol=0, atol=1e-4)
    assert 2.8 < down.abs().max() <= 3
    assert 4.8 < right.abs().max() <= 5
    scaled = run("RandomResize-0.5,1.5-2,2", batch)
    factor = scaled.y / batch.y.clamp(min=1)
    assert 0.5 <= factor[batch.y > 0].min() < 0.52
    assert torch.equal(scaled.x, 2 * batch.x)


def test_flips_turn_whole_samples_about_half_of_them():
    batch = batch_of(samples=400, length=3)
    done = run("RandomHorizontalFlip-128-0.25/RandomVerticalFlip-128-0.75", batch)
    flipped = (done.x == 127 - batch.x).all(1)
    assert ((done.x == batch.x).all(1) | flipped).all()
    assert 0.17 < flipped.float().mean() < 0.33
    assert 0.67 < (done.y == 127 - batch.y).all(1).float().mean() < 0.83


def test_shear_uses_the_old_coordinates_on_both_axes():
    batch = batch_of()
    done = run("RandomShear-0.3,0.2", batch)
    ky = ((done.y - batch.y) / batch.x.clamp(min=1))[:, :1]
    kx = ((done.x - batch.x) / batch.y.clamp(min=1))[:, :1]
    torch.testing.assert_close(done.y, batch.y + ky * batch.x, atol=1e-3, rtol=0)
    torch.testing.assert_close(done.x, batch.x + kx * batch.y, atol=1e-3, rtol=0)


def test_erasing_drops_a_rectangle_and_keeps_the_rest():
    batch = batch_of(samples=50, length=2000)
    assert run("RandomErasing-128,128-0-40,40", batch).mask.all()
    gone = ~run("RandomErasing-128,128-1-40,60", batch).mask
    for row in range(50):
        y, x = batch.y[row][gone[row]], batch.x[row][gone[row]]
        if len(y):
            assert y.max() - y.min() <= 40
            assert x.max() - x.min() <= 60
            inside = (batch.y[row] >= y.min()) & (batch.y[row] <= y.max())
            inside &= (batch.x[row] >= x.min()) & (batch.x[row] <= x.max())
            assert torch.equal(gone[row], inside)


def test_dropped_chunks_are_runs_scaled_by_the_share_that_counts():
    whole = ~run("RandomChunkDrop-1,50", batch_of(samples=200, length=1000)).mask
    assert ((whole.int().diff(dim=1) == 1).sum(1) <= 1).all()
    assert 40 < whole.sum(1).max() <= 50
    half = batch_of(samples=200, length=1000, valid=500)
    gone = half.mask & ~run("RandomChunkDrop-1,50", half).mask
    assert 15 < gone.sum(1).max() <= 25


def test_drop_flip_and_noise_touch_their_share_of_events_that_count():
    batch = batch_of(samples=8, length=2000, valid=1500)
    dropped = ~run("RandomDrop-0.2", batch).mask[:, :1500]
    assert 0.18 < dropped.float().mean() < 0.22
    flipped = run("RandomPolarityFlip-0.3", batch).p != batch.p
    assert not flipped[:, 1500:].any()
    assert 0.27 < flipped[:, :1500].float().mean() < 0.33
    noise = run("RandomReplaceByNoise-128,128-0.4", batch)
    moved = noise.x != batch.x
    assert not moved[:, 1500:].any()
    assert 0.37 < moved[:, :1500].float().mean() < 0.43
    assert noise.x.max() <= 127
    assert noise.x.min() >= 0


def test_times_are_stretched_gap_by_gap():
    batch = batch_of(valid=150)
    done = run("RandomTemporalWrap-0.5,2", batch)
    assert (done.t[:, 150:] == -1).all()
    assert torch.equal(done.t[:, 0], batch.t[:, 0])
    gaps, old = done.t[:, :150].diff(dim=1), batch.t[:, :150].diff(dim=1)
    assert (gaps >= 0.5 * old - 1e-6).all()
    assert (gaps <= 2 * old + 1e-6).all()
    wrapped = run("RandomChunkWrap-1,30-2,3", batch)
    changed = (wrapped.t != batch.t).sum(1)
    assert changed.max() <= 30
    ratio = (wrapped.t / batch.t)[wrapped.t != batch.t]
    assert ratio.min() >= 2
    assert ratio.max() <= 3


def test_policies_choose_items_once_per_batch():
    names = "RandomPolarityFlip-1/RandomHorizontalFlip-128-1/RandomVerticalFlip-128-1/RandomTranslate-1,1"
    always, never = policy(names, "RandomApply-1"), policy(names, "RandomApply-0")
    draw = torch.Generator().manual_seed(1)
    assert always.chosen(draw) == list(always.items)
    assert never.chosen(draw) == []
    shuffled = [policy(names, "RandomShuffleApply-1").chosen(draw) for _ in range(20)]
    assert len({tuple(map(id, order)) for order in shuffled}) > 5 or len(shuffled[0]) == 4
    half = [len(policy(names, "RandomApply-0.5").chosen(draw)) for _ in range(300)]
    assert 1.7 < np.mean(half) < 2.3
    one = [len(policy(names, "RandomChoice").chosen(draw)) for _ in range(300)]
    assert set(one) == {0, 1}
    assert 0.7 < np.mean(one) < 0.9


def test_items_travel_to_worker_processes():
    made = policy("RandomTranslate-3,5/Crop-0,9-0,9", "RandomApply-0.5")
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize(
    "items, message",
    [
        ("Rotate-3", "'Rotate' in 'Rotate-3' does not exist"),
        ("RandomTranslate-16", "RandomTranslate takes 2 numbers"),
        ("RandomTranslate--3,4", "'' is no number"),
        ("RandomDrop-1e-3", "neither negative nor written with an exponent"),
        ("Crop-1,2", "Crop takes 2 numbers-2 numbers"),
    ],
)
def test_what_the_grammar_cannot_say_is_explained(items, message):
    with pytest.raises(UserError, match=message):
        parse(items)


@pytest.mark.parametrize("how", ["Sometimes", "RandomApply", "RandomApply-2", "RandomChoice-0.5", "RandomApply-a"])
def test_impossible_policies_are_refused(how):
    with pytest.raises(UserError):
        policy("RandomDrop-0.1", how)


def test_every_item_runs_and_keeps_shapes():
    examples = {1: "0.5", 2: "40,60"}
    batch = batch_of()
    for name, (_, counts) in ITEMS.items():
        text = "-".join([name, *(examples[max(each)] for each in counts)])
        done = run(text, batch)
        assert done.mask.shape == batch.mask.shape
        assert not (done.mask & ~batch.mask).any()
    assert Policy(()).chosen(torch.Generator()) == []
    assert isinstance(Field(*batch[:5]), Field)
