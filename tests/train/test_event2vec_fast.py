"""The fast forward pass of Event2Vec is the network's own: logits and every gradient."""

from __future__ import annotations

import pytest
import torch

from models.event2vec import Event2Vec, Event2VecConfig
from train.event2vec import fast
from train.event2vec.batch import EventBatch
from train.event2vec.classifier import Event2VecClassifier

BASE = {
    "polarities": 2, "height": 9, "width": 7, "d_model": 16, "d_feedforward": 12, "nheads": 4, "n_layers": 2,
    "num_classes": 3,
}  # fmt: skip


def network(dtype: torch.dtype, **options) -> Event2Vec:
    torch.manual_seed(0)
    model = Event2Vec(Event2VecConfig(**BASE, **options))
    # All layers begin as copies of one, and norms at one and zero.
    with torch.no_grad():
        for value in model.parameters():
            value += 0.3 * torch.randn_like(value)
    return model.to(dtype)


def batch(length: int, intensity: bool = False) -> EventBatch:
    torch.manual_seed(1)
    p, y, x = (torch.randint(0, size, (3, length)).float() for size in (2, 9, 7))
    t = torch.randint(0, 50, (3, length)).cumsum(1).double()
    weight = torch.randint(1, 5, (3, length)).float() if intensity else None
    return EventBatch(p, y, x, t, torch.ones(3, length, dtype=torch.bool), weight, torch.eye(3), torch.arange(3))


def results(model: Event2Vec, forward) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad(set_to_none=True)
    logits = forward()
    logits.square().sum().backward()
    return logits.detach(), {name: value.grad for name, value in model.named_parameters()}


@pytest.mark.parametrize("length", [4, 64, 100])
@pytest.mark.parametrize(
    "options", [{}, {"pool_every_layer": 1}, {"pool_every_layer": 1, "time_scale": 0.1}, {"intensity": True}]
)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
def test_logits_and_gradients(length, options, dtype, bound):
    length += "pool_every_layer" not in options
    model, events = network(dtype, **options), batch(length, "intensity" in options)
    assert fast.applies(events)
    wanted, wanted_gradients = results(model, lambda: model(*events.inputs))
    got, gradients = results(model, lambda: fast.forward(model, events))
    assert wanted.abs().max() > 0.1
    assert (got - wanted).abs().max() <= bound * wanted.abs().max()
    for name, value in wanted_gradients.items():
        assert (gradients[name] - value).abs().max() <= bound * value.abs().max(), name


def test_events_outside_the_sensor_are_left_to_the_network():
    model, events = network(torch.float64), batch(64)
    events.x[1, 10:20] = 40
    torch.testing.assert_close(fast.forward(model, events), model(*events.inputs), rtol=1e-12, atol=1e-12)


def test_padded_and_long_batches_are_not_taken():
    events = batch(64)
    events.mask[2, 60:] = False
    assert not fast.applies(events)
    assert not fast.applies(batch(fast.LONGEST + 4))
    # Prefix sums of gates would be rounded with the keys.
    with torch.autocast("cpu", torch.bfloat16):
        assert not fast.applies(batch(64))
    assert fast.applies(batch(64))


@pytest.mark.parametrize("chosen", [True, False])
def test_training_uses_it_where_it_is_asked_for(chosen, monkeypatch):
    classifier = Event2VecClassifier(Event2VecConfig(**BASE), fast=chosen)
    calls = []
    monkeypatch.setattr(fast, "forward", lambda *_: calls.append(1) or torch.zeros(3, 3))
    classifier(batch(64))
    assert len(calls) == chosen
    classifier.eval()(batch(64))
    assert len(calls) == chosen
