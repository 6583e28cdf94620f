"""Mixing tokens and dropping intensities: which positions change, what the targets become, nothing in place."""

from __future__ import annotations

import pytest
import torch

from models.event2vec import Event2VecConfig
from train.event2vec.batch import EventBatch
from train.event2vec.classifier import Event2VecClassifier
from train.event2vec.mixing import intensity_drop, token_mix


def test_tokens_of_a_partner_take_the_same_places_in_all_samples():
    batch, length = 5, 40
    tokens = torch.arange(batch).float()[:, None, None].expand(batch, length, 3) + 1
    targets = torch.eye(batch)
    shares = []
    for seed in range(60):
        torch.manual_seed(seed)
        mixed, soft = token_mix(tokens, targets)
        foreign = mixed[..., 0] != tokens[..., 0]
        moved = foreign.any(1)
        # Whoever is their own partner does not change; the others change at the same places.
        assert (foreign[moved] == foreign[moved][:1]).all()
        share = foreign[moved][0].float().mean() if moved.any() else 0.0
        for row in range(batch):
            partner = int(mixed[row][foreign[row]][0, 0]) - 1 if moved[row] else row
            assert (mixed[row][foreign[row]] == partner + 1).all()
            want = (1 - share) * targets[row] + share * targets[partner]
            torch.testing.assert_close(soft[row], want)
        shares.append(float(share))
    # 1 - lambda is uniform.
    assert min(shares) < 0.1 and max(shares) > 0.9 and 0.4 < sum(shares) / 60 < 0.6


def test_dropped_intensities_count_one_and_the_given_ones_stay():
    given = torch.full((40, 50), 7.0)
    torch.manual_seed(0)
    dropped = intensity_drop(given, 0.1)
    assert (given == 7).all()
    assert set(dropped.unique().tolist()) == {1, 7}
    assert 0.07 < (dropped == 1).float().mean() < 0.13


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_training_mixes_and_drops_and_leaves_the_batch_as_it_was(drop, monkeypatch):
    network = Event2VecConfig(
        polarities=2, height=9, width=9, d_model=8, d_feedforward=8, nheads=2, n_layers=1, num_classes=2,
        intensity=True,
    )  # fmt: skip
    torch.manual_seed(0)
    learner = Event2VecClassifier(network, p_token_mix=1.0, p_intensity_drop=drop)
    p, y, x = (torch.randint(0, high, (2, 12)).float() for high in (2, 9, 9))
    t, mask = torch.arange(12.0).double().expand(2, 12), torch.ones(2, 12, dtype=torch.bool)
    batch = EventBatch(p, y, x, t, mask, torch.full((2, 12), 5.0), torch.eye(2), torch.arange(2))
    before = [value.clone() for value in batch]
    seen, logged = [], []
    tokens = learner.model.tokens
    monkeypatch.setattr(learner.model, "tokens", lambda inputs, weight: seen.append(weight) or tokens(inputs, weight))
    monkeypatch.setattr(learner, "_log", lambda split, loss, logits, given: logged.append(given.targets))
    assert learner.training_step(batch, 0).isfinite()
    assert (seen[0] == (1 if drop else 5)).all()
    torch.testing.assert_close(logged[0].sum(1), torch.ones(2))
    assert all(torch.equal(*pair) for pair in zip(batch, before, strict=True))
