"""event-ssm's layers: steps against sequences, pooling, norms, dropout, precision, edge cases of the head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from models.event_ssm import EventSSM, EventSSMConfig
from models.event_ssm.layers import S5, FeatureDropout, SequenceLayer, event_pool
from models.event_ssm.norms import BatchNorm

TINY = EventSSMConfig(20, 3, 8, 8, 4, 2, 2, pooling_stride=3, state_expansion_factor=2)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(11)


def rates(s5: S5) -> tuple[torch.Tensor, torch.Tensor]:
    real, imaginary, step = s5.rates()
    return torch.complex(real, imaginary), step


@pytest.mark.parametrize("discretization", ["zoh", "dirac", "async"])
@pytest.mark.parametrize("conj_sym", [False, True])
def test_definition(discretization, conj_sym):
    config = replace(TINY, discretization=discretization, conj_sym=conj_sym, step_rescale=0.5)
    s5 = S5(config, 8, 6, 4 if conj_sym else 8).double()
    u, dt = torch.randn(2, 13, 8, dtype=torch.float64), torch.rand(2, 13, dtype=torch.float64) * 20
    eigenvalues, step = rates(s5)
    B, C = torch.view_as_complex(s5.B.contiguous()), torch.view_as_complex(s5.C.contiguous())
    x, outputs = torch.zeros(2, B.shape[0], dtype=torch.complex128), []
    for k in range(13):
        decay = torch.exp(eigenvalues * step * dt[:, k, None])
        gamma = {
            "zoh": (decay - 1) / eigenvalues,
            "dirac": torch.ones_like(decay),
            "async": ((eigenvalues * step).exp() - 1) / eigenvalues,
        }[discretization]
        x = decay * x + gamma * (u[:, k].to(B.dtype) @ B.T)
        outputs.append((2 if conj_sym else 1) * (x @ C.T).real + u[:, k] @ s5.D.T)
    torch.testing.assert_close(s5(u, dt), torch.stack(outputs, 1))


@pytest.mark.parametrize("discretization", ["zoh", "dirac", "async"])
@pytest.mark.parametrize("batchnorm", [False, True])
def test_a_step_is_a_row_of_the_sequence(discretization, batchnorm):
    layer = SequenceLayer(replace(TINY, discretization=discretization, batchnorm=batchnorm), 8, 16, 8).eval()
    x, dt = torch.randn(1, 5, 8), torch.rand(1, 5)
    s5, u = layer.s5, layer.norm(x)
    pairs = [
        (u[0, 3], layer.norm(x[0, 3])),
        (layer.skip(x)[0, 3], layer.skip(x[0, 3])),
        (s5.feed(u)[0, 3], s5.feed(u[0, 3])),
        *((whole[0, 3], step) for whole, step in zip(s5.decay(dt), s5.decay(dt[0, 3]), strict=True)),
        *((whole[0, 3], step) for whole, step in zip(s5.drive(u, dt), s5.drive(u[0, 3], dt[0, 3]), strict=True)),
    ]
    re, im = s5.scan(u, dt)
    y = s5.read(re, im)
    pairs += [(y[0, 3], s5.read(re[0, 3], im[0, 3])), (layer.mix(y)[0, 3], layer.mix(y[0, 3]))]
    for whole, step in pairs:
        assert whole.shape == step.shape
        torch.testing.assert_close(whole, step)


def test_scan_continues_from_a_state():
    s5 = S5(TINY, 8, 8, 8)
    u, dt = torch.randn(2, 21, 8), torch.rand(2, 21)
    re, im = s5.scan(u, dt)
    half_re, half_im = s5.scan(u[:, 10:], dt[:, 10:], re[:, 9], im[:, 9])
    torch.testing.assert_close(half_re, re[:, 10:])
    torch.testing.assert_close(half_im, im[:, 10:])


def test_zoh_ignores_simultaneous_events_and_keeps_short_gaps_exact():
    s5 = S5(replace(TINY, discretization="zoh"), 8, 8, 8)
    u = torch.randn(8)
    for part in s5.drive(u, torch.tensor(0.0)):
        assert part.abs().max() == 0
    dt = torch.tensor(1e-4)
    exact = torch.complex(*s5.double().drive(u.double(), dt.double()))
    rounded = torch.complex(*s5.float().drive(u, dt))
    assert (rounded - exact).abs().max() < 1e-6 * exact.abs().max()


@pytest.mark.parametrize("discretization", ["zoh", "async"])
def test_zero_eigenvalue(discretization):
    s5 = S5(replace(TINY, discretization=discretization), 8, 8, 8).double()
    with torch.no_grad():
        s5.Lambda_re[0] = s5.Lambda_im[0] = 0
    u, dt = torch.randn(8, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    re, im = s5.drive(u, dt)
    span = s5.log_step[0, 0].exp() * (dt if discretization == "zoh" else 1)
    torch.testing.assert_close(re[0], span * (s5.B[0, :, 0] @ u))
    torch.testing.assert_close(im[0], span * (s5.B[0, :, 1] @ u))
    (re.sum() + im.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in s5.parameters())


def test_clipping_acts_on_use_only():
    s5 = S5(replace(TINY, clip_eigs=True), 8, 8, 8)
    with torch.no_grad():
        s5.Lambda_re[:2] = torch.tensor([0.5, -0.3])
    real, _, _ = s5.rates()
    torch.testing.assert_close(real[:2], torch.tensor([-1e-4, -0.3]))
    assert s5.Lambda_re[0].item() == 0.5


def test_event_pool():
    x, dt = torch.arange(14.0).reshape(1, 7, 2), torch.tensor([[1.0, 0, 3, 0, 0, 0, 5]])
    pooled, gaps = event_pool(x, dt, 3, "last")
    torch.testing.assert_close(pooled, x[:, [0, 3]])
    torch.testing.assert_close(gaps, torch.tensor([[4.0, 0.0]]))
    torch.testing.assert_close(event_pool(x, dt, 3, "avgpool")[0], torch.tensor([[[2.0, 3], [8, 9]]]))
    wanted = torch.tensor([[[3.0, 4], [8, 9]]])
    torch.testing.assert_close(event_pool(x, dt, 3, "timepool")[0], wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(event_pool(x[0], dt[0], 3, "timepool")[0], wanted[0], rtol=1e-5, atol=1e-5)
    assert event_pool(x, dt, 8, "timepool")[0].shape == (1, 0, 2)
    for stride, mode in ((1, "last"), (2, "max")):
        with pytest.raises(ValueError, match="pooling"):
            event_pool(x, dt, stride, mode)


def test_batch_norm():
    ours, theirs = BatchNorm(6, momentum=0.9), nn.BatchNorm1d(6, momentum=0.1)
    x = torch.randn(4, 5, 6) * 3 + 1
    torch.testing.assert_close(ours(x), theirs(x.reshape(20, 6)).reshape(4, 5, 6))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var - 0.9, (theirs.running_var - 0.9) * 19 / 20)
    ours.eval()
    scale = (ours.running_var + 1e-5).rsqrt()
    torch.testing.assert_close(ours(x), (x - ours.running_mean) * scale)
    torch.testing.assert_close(ours(x[1, 2]), ours(x)[1, 2])


def test_dropout_masks_are_constant_over_time():
    dropout = FeatureDropout(0.25)
    y = dropout(torch.ones(64, 9, 100))
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (y[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(dropout.eval()(y), y)


@pytest.mark.parametrize("length", [1, 8, 9, 10, 63, 111])
@pytest.mark.parametrize("mode", ["pool", "timepool", "last"])
def test_odd_lengths_and_the_head(length, mode):
    model = EventSSM(replace(TINY, classification_mode=mode)).eval()
    tokens, dt = torch.randint(0, 20, (2, length)), torch.rand(2, length)
    logits = model(tokens, dt, torch.tensor([length, min(length, 8)]))
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[1], model.decoder.bias)
    if length < 9:
        torch.testing.assert_close(logits[0], model.decoder.bias)


def test_simultaneous_events_only_give_the_plain_mean():
    timepool = EventSSM(replace(TINY, classification_mode="timepool")).double().eval()
    pool = EventSSM(replace(TINY, classification_mode="pool")).double().eval()
    pool.load_state_dict(timepool.state_dict())
    tokens, dt, lengths = torch.randint(0, 20, (2, 45)), torch.zeros(2, 45), torch.tensor([40, 45])
    torch.testing.assert_close(timepool(tokens, dt, lengths), pool(tokens, dt, lengths))


def test_padding_reads_the_last_row_and_other_tokens_are_refused():
    model = EventSSM(TINY)
    torch.testing.assert_close(model.embed(torch.tensor([-1, 3])), model.embedding.weight[[19, 3]])
    for token in (-2, 20):
        with pytest.raises(IndexError):
            model.embed(torch.tensor([token]))


def test_padding_does_not_change_the_answer():
    model = EventSSM(TINY).double().eval()
    tokens, dt, lengths = torch.randint(0, 20, (1, 45)), torch.rand(1, 45).double(), torch.tensor([45])
    padded = nn.functional.pad(tokens, (0, 40), value=-1), nn.functional.pad(dt, (0, 40))
    torch.testing.assert_close(model(tokens, dt, lengths), model(*padded, lengths))


@pytest.mark.parametrize("changes", [{}, {"batchnorm": True, "discretization": "zoh"}])
def test_autocast_keeps_state_norms_and_residual(changes):
    config = replace(TINY, dropout=0.1, **changes)
    model = EventSSM(config).train()
    batch = torch.randint(0, 20, (3, 90)), torch.rand(3, 90), torch.tensor([90, 50, 81])
    seen = []
    for layer in model.layers():
        layer.register_forward_hook(lambda _, __, out: seen.extend(o.dtype for o in out))
        layer.norm.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
        layer.s5.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(*batch).float().square().sum()
        re, im = model.stages[0][0].s5.scan(model.embed(batch[0]), batch[1])
    loss.backward()
    assert set(seen) | {re.dtype, im.dtype} == {torch.float32}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    exact = model(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(*batch).float()
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_gradients():
    model = EventSSM(replace(TINY, discretization="zoh", pooling_stride=2, batchnorm=True)).double()
    tokens, dt, lengths = torch.randint(0, 20, (2, 12)), torch.rand(2, 12).double(), torch.tensor([12, 9])
    layer = model.stages[1][0]
    names = ("Lambda_re", "Lambda_im", "log_step", "B", "C", "D")

    def loss(*values):
        changed = {f"stages.1.0.s5.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(model, changed, (tokens, dt, lengths))

    values = [getattr(layer.s5, name).detach().clone().requires_grad_() for name in names]
    model.eval()
    assert torch.autograd.gradcheck(loss, values, fast_mode=True)
