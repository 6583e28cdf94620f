"""Optimiser groups and schedules."""

from __future__ import annotations

import math
import pickle

import pytest
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from models.event_ssm import EventSSM, EventSSMConfig
from runtime.errors import UserError
from train.optim import parameter_groups, schedule, warmup_constant, warmup_cosine


@pytest.fixture
def model():
    return EventSSM(EventSSMConfig(20, 3, 8, 8, 4, 2, 2, pooling_stride=2, batchnorm=True))


def test_groups_partition_the_parameters(model):
    ssm, regular = parameter_groups(model, 1e-3, 5, 0.1, 0.2)
    names = {id(parameter): name.rpartition(".")[2] for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in ssm["params"]} == {"B", "Lambda_re", "Lambda_im"}
    assert {"C", "D", "log_step", "weight", "bias"} == {names[id(p)] for p in regular["params"]}
    assert len(ssm["params"]) + len(regular["params"]) == len(names)
    assert (ssm["lr"], ssm["weight_decay"], regular["lr"], regular["weight_decay"]) == (1e-3, 0.1, 5e-3, 0.2)


def test_frozen_parameters_stay_out(model):
    model.embedding.weight.requires_grad_(False)
    groups = parameter_groups(model, 1e-3, 5, 0, 0)
    assert not any(p is model.embedding.weight for group in groups for p in group["params"])


def test_cosine():
    assert [warmup_cosine(step, 2, 10) for step in range(3)] == [0, 0.5, 1]
    assert warmup_cosine(3, 2, 10) == pytest.approx(0.5 * (1 + math.cos(math.pi / 8)))
    assert warmup_cosine(6, 2, 10) == pytest.approx(0.5)
    assert warmup_cosine(10, 2, 10) == warmup_cosine(11, 2, 10) == 0
    assert warmup_cosine(0, 0, 4) == 1
    assert warmup_cosine(4, 4, 4) == 0


def test_constant():
    assert [warmup_constant(step, 2, 10) for step in (0, 1, 2, 10, 99)] == [0, 0.5, 1, 1, 1]


def test_schedule_drives_an_optimiser(model):
    optimiser = AdamW(parameter_groups(model, 1e-3, 5, 0, 0))
    scheduler = LambdaLR(optimiser, pickle.loads(pickle.dumps(schedule("cosine", 2, 10))))
    rates = []
    for _ in range(4):
        rates.append([group["lr"] for group in optimiser.param_groups])
        optimiser.step()
        scheduler.step()
    factors = [0, 0.5, 1, 0.5 * (1 + math.cos(math.pi / 8))]
    assert rates == [pytest.approx([1e-3 * f, 5e-3 * f]) for f in factors]


@pytest.mark.parametrize(("kind", "warmup"), [("linear", 1), ("cosine", 11), ("cosine", -1)])
def test_schedule_errors(kind, warmup):
    with pytest.raises(UserError):
        schedule(kind, warmup, 10)
