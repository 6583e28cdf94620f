"""CutMix: what is exchanged, and how targets follow."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from train.augment import Columns, cut_mix


def recordings(seed: int, batch: int, longest: int = 80) -> list[Columns]:
    # x names the recording an event comes from.
    rng = np.random.default_rng(seed)
    made = []
    for row in range(batch):
        count = int(rng.integers(0, longest))
        t = np.sort(rng.integers(0, 1000, count))
        made.append(Columns(t, np.full(count, row), np.arange(count), rng.integers(0, 2, count)))
    return made


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_targets_are_shares_of_events(seed, batch):
    samples = recordings(seed, batch)
    targets = np.eye(batch, dtype=np.float32)
    mixed, soft = cut_mix(samples, targets, np.random.default_rng(seed))
    partners = np.random.default_rng(seed).permutation(batch)
    assert soft.dtype == np.float32
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)
    for row, (events, partner) in enumerate(zip(mixed, partners, strict=True)):
        assert (np.diff(events.t) >= 0).all()
        assert set(events.x.tolist()) <= {row, partner}
        if partner != row and len(events):
            share = (events.x == partner).mean()
            np.testing.assert_allclose(soft[row, partner], share, rtol=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_the_run_replaces_its_span_of_time(seed):
    samples = recordings(seed, 2)
    mixed, _ = cut_mix(samples, np.eye(2, dtype=np.float32), np.random.default_rng(seed))
    partners = np.random.default_rng(seed).permutation(2)
    for row, partner in enumerate(partners):
        if partner == row or len(samples[partner]) < 2:
            continue
        run = mixed[row][mixed[row].x == partner]
        # A run of neighbouring events, unshifted, and fewer than all of the partner's.
        assert run.y.tolist() == list(range(run.y[0], run.y[0] + len(run)))
        assert run.t.tolist() == samples[partner].t[run.y[0] : run.y[0] + len(run)].tolist()
        assert len(run) < len(samples[partner])
        own = mixed[row][mixed[row].x == row]
        outside = (samples[row].t < run.t[0]) | (samples[row].t > run.t[-1])
        assert own.y.tolist() == samples[row].y[outside].tolist()


def test_a_partner_without_events_changes_nothing():
    empty = Columns(*(np.empty(0, np.int64) for _ in range(4)))
    full = recordings(1, 1)[0]
    for seed in range(10):
        mixed, soft = cut_mix([full, empty], np.eye(2, dtype=np.float32), np.random.default_rng(seed))
        assert soft[0].argmax() == 0
        assert len(mixed) == 2
