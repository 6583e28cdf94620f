"""The fast forward pass is the network's own: outputs and every gradient."""

from __future__ import annotations

import pytest
import torch

from models.event_ssm import EventSSM, EventSSMConfig
from train import fast

BASE = {
    "num_embeddings": 50, "num_classes": 4, "d_model": 6, "d_ssm": 8, "ssm_block_size": 4, "num_stages": 2,
    "num_layers_per_stage": 2, "pooling_stride": 4,
}  # fmt: skip


def network(**options) -> EventSSM:
    torch.manual_seed(0)
    return EventSSM(EventSSMConfig(**BASE, **options)).double()


def batch(length: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    tokens, dt = torch.randint(0, 50, (3, length)), torch.rand(3, length, dtype=torch.float64) * 30
    dt[0, ::3] = 0
    tokens[1, length // 2 :] = -1
    dt[1, length // 2 :] = 0
    return tokens, dt, torch.tensor([length, length // 2, length - 1])


@pytest.mark.parametrize("mode", ["avgpool", "timepool", "last"])
@pytest.mark.parametrize("discretization", ["async", "dirac"])
@pytest.mark.parametrize("options", [{"conj_sym": True, "clip_eigs": True}, {"state_expansion_factor": 2}])
@pytest.mark.parametrize("length", [3, 16, 63, 111])
def test_outputs_and_gradients(mode, discretization, options, length):
    model = network(pooling_mode=mode, discretization=discretization, **options)
    assert fast.applies(model)
    wanted = model(*batch(length))
    wanted.square().sum().backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    got = fast.forward(model, *batch(length))
    got.square().sum().backward()
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)
    for name, value in model.named_parameters():
        if gradients[name] is None:
            assert value.grad is None, name
        else:
            torch.testing.assert_close(value.grad, gradients[name], rtol=1e-8, atol=1e-11, msg=name)


def test_parts_of_a_batch_add_up(monkeypatch):
    model = network()
    whole = fast.forward(model, *batch(63))
    whole.sum().backward()
    gradient = model.embedding.weight.grad.clone()
    model.zero_grad()
    monkeypatch.setattr(fast, "CACHED_ELEMENTS", 1)
    parts = fast.forward(model, *batch(63))
    parts.sum().backward()
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(model.embedding.weight.grad, gradient)


@pytest.mark.parametrize(
    "options", [{"discretization": "zoh"}, {"batchnorm": True}, {"prenorm": False}, {"pooling_stride": 1}]
)
def test_networks_it_is_not_for(options):
    assert not fast.applies(EventSSM(EventSSMConfig(**{**BASE, **options})))
