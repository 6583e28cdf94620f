"""Distributions of event-ssm's initial values."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from models.event_ssm import EventSSM, EventSSMConfig, hippo
from models.event_ssm.layers import S5

WIDE = EventSSMConfig(50, 3, 96, 128, 8, 1, 1, dt_min=0.002, dt_max=0.1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(7)


def test_legs_eigenvalues():
    real, imaginary, V = hippo.legs_eigenbasis(8)
    wanted = torch.tensor([0.42749, 1.95779, 5.35421, 19.85741], dtype=torch.float64)
    torch.testing.assert_close(real, torch.full((8,), -0.5, dtype=torch.float64))
    torch.testing.assert_close(imaginary, torch.cat((-wanted.flip(0), wanted)), rtol=0, atol=1e-5)
    torch.testing.assert_close(V.conj().T @ V, torch.eye(8, dtype=torch.complex128))


def test_blocks_and_conjugate_symmetry():
    real, imaginary, V = hippo.block_eigenbasis(24, 8, conj_sym=True)
    assert real.shape == imaginary.shape == (12,)
    assert V.shape == (24, 12)
    assert (imaginary < 0).all()
    assert torch.equal(imaginary[:4], imaginary[4:8])
    assert V[8:, :4].abs().max() == 0
    _, _, full = hippo.block_eigenbasis(24, 8, conj_sym=False)
    torch.testing.assert_close(full[:8, :4], V[:8, :4])


def test_lecun_normal_is_truncated_with_exact_variance():
    sample = hippo.lecun_normal(400, 300)
    assert sample.std().item() == pytest.approx(400**-0.5, rel=0.01)
    assert sample.abs().max() <= 2 / hippo.TRUNCATED_STD / 20 + 1e-12


@pytest.mark.parametrize("conj_sym", [False, True])
def test_input_matrix(conj_sym):
    # V^H is a rotation, so each complex entry keeps the variance 1/P of the real entries.
    config = replace(WIDE, conj_sym=conj_sym)
    s5 = S5(config, 96, 96, config.stage_widths[0][2])
    assert s5.B.shape == (64 if conj_sym else 128, 96, 2)
    assert s5.B.square().sum(-1).mean().item() == pytest.approx(1 / 128, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "variance"),
    [("lecun_normal", 2 / (96 * 128)), ("trunc_standard_normal", 2 / 128), ("complex_normal", 1.0)],
)
def test_output_matrix(kind, variance):
    config = replace(WIDE, C_init=kind)
    s5 = S5(config, 96, 96, 128)
    assert s5.C.shape == (96, 128, 2)
    assert s5.C.square().sum(-1).mean().item() == pytest.approx(variance, rel=0.05)
    assert abs(s5.C.mean().item()) < 4 * math.sqrt(variance / s5.C.numel())


def test_steps_feedthrough_dense_and_embedding():
    config = replace(WIDE, d_model=256, d_ssm=512, state_expansion_factor=2, num_stages=2, num_embeddings=2000)
    model = EventSSM(config)
    first, second = model.stages[0][0], model.stages[1][0]
    steps = second.s5.log_step.exp()
    assert 0.002 <= steps.min() < 0.0022
    assert 0.09 < steps.max() <= 0.1
    assert second.s5.log_step.mean().item() == pytest.approx((math.log(0.002) + math.log(0.1)) / 2, abs=0.15)
    assert first.s5.D.std().item() == pytest.approx(1, rel=0.15)
    assert second.s5.D.shape == (512, 256)
    assert second.s5.D.std().item() == pytest.approx(math.sqrt(2 / 768), rel=0.02)
    assert second.skip.weight.std().item() == pytest.approx(1 / 16, rel=0.02)
    assert second.skip.bias.abs().max() == 0
    assert model.embedding.weight.std().item() == pytest.approx(1 / 16, rel=0.02)
    assert isinstance(first.skip, torch.nn.Identity)


def test_seed_decides():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(EventSSM(WIDE).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
