"""Every augmentation against its definition: counts, ranges, order, and what it may not touch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.augment import AugmentAudio, AugmentVision, Columns, Warp
from train.augment.downsample import downsample
from train.augment.drop_event import drop_event
from train.augment.drop_event_chunk import drop_event_chunk
from train.augment.jitter_channel import jitter_channel
from train.augment.jitter_pixel import jitter_pixel
from train.augment.roll import roll
from train.augment.rotate import rotate
from train.augment.run import run
from train.augment.scale import scale
from train.augment.thin import thin
from train.augment.time_crop import time_crop
from train.augment.time_jitter import time_jitter
from train.augment.time_skew import time_skew
from train.augment.uniform_noise import uniform_noise

W, H = 20, 12


def recording(seed: int, count: int, width: int = W, height: int = H) -> Columns:
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, 50_000, count))
    return Columns(t, rng.integers(0, width, count), rng.integers(0, height, count), rng.integers(0, 2, count))


def rows(events: Columns) -> list[tuple[int, ...]]:
    return list(zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True))


def is_subsequence(part: list, whole: list) -> bool:
    rest = iter(whole)
    return all(row in rest for row in part)


def check(events: Columns) -> None:
    assert (np.diff(events.t) >= 0).all()
    assert ((events.x >= 0) & (events.x < W) & (events.y >= 0) & (events.y < H)).all()
    assert set(events.p.tolist()) <= {0, 1}
    assert all(getattr(events, name).dtype == np.int64 for name in "txyp")


seeds = st.integers(0, 2**32 - 1)
counts = st.integers(0, 300)


@given(seeds, counts, st.floats(0, 1))
def test_drop_event_drops_the_exact_number_and_keeps_order(seed, count, fraction):
    before = recording(seed, count)
    after = drop_event(before, np.random.default_rng(seed), fraction)
    assert len(after) == count - round(fraction * count)
    assert is_subsequence(rows(after), rows(before))


def test_drop_event_chooses_at_random():
    before = recording(0, 100)
    first, second = (drop_event(before, np.random.default_rng(seed), 0.5) for seed in (0, 1))
    assert rows(first) != rows(second)


@given(seeds, counts, st.floats(0, 1))
def test_drop_event_chunk_removes_one_run(seed, count, largest):
    before = recording(seed, count)
    after = drop_event_chunk(before, np.random.default_rng(seed), largest, probability=1)
    removed = count - len(after)
    if int(largest * count) <= 1:
        assert after is before
        return
    assert 1 <= removed < int(largest * count)
    assert any(rows(before[:begin]) + rows(before[begin + removed :]) == rows(after) for begin in range(len(after) + 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda events, rng: drop_event_chunk(events, rng, 0.5),
        lambda events, rng: roll(events, rng, 5, W, H),
        lambda events, rng: rotate(events, rng, 20.0, W, H),
        lambda events, rng: scale(events, rng, 1.5, W, H),
    ],
)
def test_three_in_ten_recordings_change(change):
    before, rng = recording(0, 50), np.random.default_rng(0)
    changed = sum(change(before, rng) is not before for _ in range(2000))
    assert 500 < changed < 700


@given(seeds, counts)
def test_jitter_channel_truncates_towards_zero(seed, count):
    before = recording(seed, count)
    after = jitter_channel(before, np.random.default_rng(seed), 0.55, W)
    shift = np.trunc(np.random.default_rng(seed).normal(0, 0.55, count)).astype(np.int64)
    moved = before.x + shift
    stay = (moved >= 0) & (moved < W)
    assert after.x.tolist() == moved[stay].tolist()
    assert after.t.tolist() == before.t[stay].tolist()


@given(seeds, counts)
def test_jitter_pixel_takes_a_variance(seed, count):
    before = recording(seed, count)
    after = jitter_pixel(before, np.random.default_rng(seed), 4.0, W, H)
    check(after)
    assert len(after) <= count
    still = jitter_pixel(before, np.random.default_rng(seed), 0.0, W, H)
    assert still is before


def test_jitter_pixel_spreads_by_the_square_root_of_the_variance():
    far = Columns(*(np.full(20_000, value, np.int64) for value in (0, 5000, 5000, 0)))
    after = jitter_pixel(far, np.random.default_rng(0), 9.0, 10_000, 10_000)
    assert after.x.std() == pytest.approx(3.0, rel=0.05)
    assert after.y.std() == pytest.approx(3.0, rel=0.05)


@given(seeds, counts, st.floats(1, 3))
def test_time_skew_is_one_factor(seed, count, largest):
    before = recording(seed, count)
    after = time_skew(before, np.random.default_rng(seed), largest)
    assert len(after) == count
    assert (np.diff(after.t) >= 0).all()
    assert (after.t <= before.t * largest).all()
    assert (after.t + 1 >= before.t / largest).all()
    assert rows(Columns(before.t, after.x, after.y, after.p)) == rows(before)


@given(seeds, counts, st.floats(0, 1000))
def test_time_jitter_sorts_and_keeps_every_event(seed, count, deviation):
    before = recording(seed, count)
    after = time_jitter(before, np.random.default_rng(seed), deviation)
    assert (np.diff(after.t) >= 0).all()
    assert Counter(zip(after.x, after.y, after.p, strict=True)) == Counter(
        zip(before.x, before.y, before.p, strict=True)
    )


def test_time_jitter_keeps_negative_times():
    start = Columns(*(np.zeros(100, np.int64) for _ in range(4)))
    assert time_jitter(start, np.random.default_rng(0), 50.0).t.min() < 0


@given(seeds, st.integers(1, 300), st.integers(0, 50))
def test_uniform_noise_adds_fewer_than_the_limit(seed, count, limit):
    before = recording(seed, count)
    after = uniform_noise(before, np.random.default_rng(seed), limit, W, H)
    check(after)
    assert 0 <= len(after) - count < max(limit, 1)
    assert not Counter(rows(before)) - Counter(rows(after))
    assert after.t[0] == before.t[0]
    assert after.t[-1] == before.t[-1]


def test_noise_of_audio_has_one_polarity_and_ear():
    before = Columns(*(np.array([0, 1000], np.int64) * factor for factor in (1, 0, 0, 0)))
    after = uniform_noise(before, np.random.default_rng(0), 1000, 700, 1)
    assert set(after.y.tolist()) == {0}
    assert after.x.max() > 600


@given(seeds, counts, st.integers(1, 8))
def test_roll_shifts_all_by_the_same(seed, count, largest):
    before = recording(seed, count)
    after = roll(before, np.random.default_rng(seed), largest, W, H, probability=1)
    check(after)
    possible = [
        [(t, x + right, y + down, p) for t, x, y, p in rows(before) if 0 <= x + right < W and 0 <= y + down < H]
        for right in range(-largest, largest)
        for down in range(-largest, largest)
    ]
    assert rows(after) in possible


@given(seeds, counts, st.floats(0.1, 180))
def test_rotate_loses_nothing_and_stays_on_the_sensor(seed, count, largest):
    before = recording(seed, count)
    after = rotate(before, np.random.default_rng(seed), largest, W, H, probability=1)
    check(after)
    assert len(after) == count


def test_rotate_clips_to_the_last_pixel():
    corner = Columns(*(np.array([value], np.int64) for value in (0, W - 1, H - 1, 1)))
    for seed in range(200):
        after = rotate(corner, np.random.default_rng(seed), 90.0, W, H, probability=1)
        assert after.x[0] <= W - 1
        assert after.y[0] <= H - 1


@given(seeds, counts, st.floats(1, 3))
def test_scale_multiplies_from_the_origin(seed, count, largest):
    before = recording(seed, count)
    rng = np.random.default_rng(seed)
    rng.random()
    factor = rng.uniform(1 / largest, largest)
    after = scale(before, np.random.default_rng(seed), largest, W, H, probability=1)
    check(after)
    if largest > 1:
        x, y = np.trunc(before.x * factor), np.trunc(before.y * factor)
        stay = (x < W) & (y < H)
        assert after.x.tolist() == x[stay].astype(int).tolist()
        assert after.y.tolist() == y[stay].astype(int).tolist()


def test_downsample_merges_pixels():
    before = recording(0, 100)
    after = downsample(before, 4)
    assert after.x.tolist() == (before.x // 4).tolist()
    assert after.t is before.t


@given(seeds, counts, st.integers(0, 100), st.integers(0, 100))
def test_thin_keeps_a_number_in_the_bounds(seed, count, fewest, more):
    before, most = recording(seed, count), fewest + more
    after = thin(before, np.random.default_rng(seed), fewest, most)
    assert is_subsequence(rows(after), rows(before))
    if most:
        assert min(fewest, count) <= len(after) <= most
    else:
        assert after is before


@given(seeds, counts, st.floats(0.1, 1))
def test_time_crop_keeps_one_span(seed, count, shortest):
    before = recording(seed, count)
    after = time_crop(before, np.random.default_rng(seed), shortest)
    if count < 2 or shortest == 1:
        assert after is before
        return
    begin = rows(before).index(rows(after)[0]) if len(after) else 0
    assert rows(before[begin : begin + len(after)]) == rows(after) or len(set(before.t.tolist())) < count
    inside = (before.t >= after.t[0]) & (before.t <= after.t[-1])
    assert inside.sum() == len(after)
    assert len(after) >= 1


def test_time_crop_has_the_stated_length():
    before, rng = recording(0, 100_000), np.random.default_rng(0)
    spans = [np.ptp(time_crop(before, rng, 0.4).t) / np.ptp(before.t) for _ in range(500)]
    assert min(spans) == pytest.approx(0.4, abs=0.02)
    assert np.mean(spans) == pytest.approx(0.7, abs=0.03)


@given(seeds, counts)
def test_warp_stays_on_the_sensor(seed, count):
    warp = Warp(angle=30, scale=1.5, aspect=1.3, shear=0.3, shift=4, elastic=1.5, smoothness=3)
    before = recording(seed, count)
    after = warp(before, np.random.default_rng(seed), W, H)
    check(after)
    assert len(after) <= count
    assert Warp()(before, np.random.default_rng(seed), W, H) is before


def test_warp_by_a_shift_is_unbiased():
    middle = Columns(*(np.full(1, value, np.int64) for value in (0, 50, 50, 0)))
    rng = np.random.default_rng(0)
    places = np.array([Warp(shift=3)(middle, rng, 101, 101).x[0] for _ in range(4000)])
    assert places.mean() == pytest.approx(50, abs=0.1)
    assert places.min() >= 47
    assert places.max() <= 53


def test_warp_elastic_has_the_stated_size():
    field = Warp(elastic=2.0, smoothness=4)._field(np.random.default_rng(0), 200, 200)
    assert field.std() == pytest.approx(2.0, rel=0.15)
    assert np.abs(np.diff(field, axis=2)).mean() < 0.6


def test_a_run_keeps_neighbours_and_their_gaps():
    before, begins = recording(0, 200), set()
    for seed in range(60):
        after = run(before, np.random.default_rng(seed), 20, 50)
        assert 20 <= len(after) <= 50
        found = [b for b in range(200) if rows(before[b : b + len(after)]) == rows(after)]
        assert found
        begins.add(found[0])
    assert min(begins) < 20
    assert max(begins) > 120
    assert rows(run(before, np.random.default_rng(0), 300, 400)) == rows(before)
    assert rows(run(before, np.random.default_rng(0), 0, 0)) == rows(before)


@settings(max_examples=50)
@given(seeds, st.integers(2, 300))
def test_pipelines_give_valid_recordings(seed, count):
    before = recording(seed, count)
    vision = AugmentVision(0.5, (50, 200), 0.02, 0.05, 10, 1.12, 5, 0.3, 4, 10, 1.2, Warp(angle=5, elastic=0.5))
    check(vision(before, np.random.default_rng(seed), W, H))
    audio = AugmentAudio(0.1, 0.02, 0.55, 1.2, 1, 35)
    check(audio(Columns(before.t, before.x, before.y * 0, before.p), np.random.default_rng(seed), W, 1))


def test_pipelines_do_nothing_by_default():
    before = recording(0, 100)
    for pipeline in (AugmentVision(), AugmentAudio()):
        assert rows(pipeline(before, np.random.default_rng(0), W, H)) == rows(before)


def test_the_same_seed_repeats_itself():
    before, pipeline = (
        recording(0, 100),
        AugmentVision(max_roll=3, max_angle=10, max_scale=1.2, noise=10, time_jitter=5),
    )
    first, second = (pipeline(before, np.random.default_rng(7), W, H) for _ in range(2))
    assert rows(first) == rows(second)
