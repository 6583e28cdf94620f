from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from neurocompile.ops.diagonal_scan import blocked, diagonal_scan
from neurocompile.ops.diagonal_scan.reference import diagonal_scan as reference

LENGTHS = [1, 2, 8, 9, 63, 64, 65, 100, 111, 257, 1000]


def make_inputs(batch, steps, width, *, dtype=torch.float64, initial=True, seed=0):
    """Decays of a stable oscillator (|a| up to 1), inputs and initial state of unit size."""
    draw = torch.Generator().manual_seed(seed)
    radius = 1 - 0.5 * torch.rand(batch, steps, width, generator=draw, dtype=torch.float64) ** 3
    angle = 6 * torch.rand(batch, steps, width, generator=draw, dtype=torch.float64)
    tensors = [radius * angle.cos(), radius * angle.sin()]
    tensors += [torch.randn(batch, steps, width, generator=draw, dtype=torch.float64) for _ in range(2)]
    if initial:
        tensors += [torch.randn(batch, width, generator=draw, dtype=torch.float64) for _ in range(2)]
    return [tensor.to(dtype) for tensor in tensors]


def run_with_gradients(op, inputs, seed=1):
    """States and gradients of a random functional of them."""
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    states = op(*leaves)
    draw = torch.Generator().manual_seed(seed)
    weights = [torch.randn(x.shape, generator=draw, dtype=torch.float64).to(x.dtype) for x in states]
    return states, torch.autograd.grad(states, leaves, weights)


def assert_close(actual, expected, relative):
    names = ("re", "im", "a_re", "a_im", "b_re", "b_im", "x0_re", "x0_im")[: len(actual)]
    for name, got, want in zip(names, actual, expected, strict=True):
        scale = want.abs().max().item() if want.numel() else 0
        error = (got.double() - want.double()).abs().max().item() if want.numel() else 0
        assert error <= relative * scale, f"{name}: {error:.3g} against a largest value of {scale:.3g}"


def against_reference(op, inputs, relative):
    states, gradients = run_with_gradients(op, inputs)
    wide_states, wide_gradients = run_with_gradients(reference, [value.double() for value in inputs])
    assert_close([*states, *gradients], [*wide_states, *wide_gradients], relative)


@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("steps", LENGTHS)
def test_states_and_all_gradients_equal_the_reference(steps, initial):
    against_reference(diagonal_scan, make_inputs(2, steps, 3, initial=initial), 1e-12)


@pytest.mark.parametrize("steps", [63, 111, 1000])
def test_float32_stays_within_rounding(steps):
    against_reference(diagonal_scan, make_inputs(2, steps, 5, dtype=torch.float32), 5e-6)


@pytest.mark.parametrize("size", [2, 3, 32])
def test_blocks_of_any_size_agree(size, monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK_STEPS", size)
    for steps in (1, 2, 9, 31, 32, 33, 100, 1111):
        against_reference(diagonal_scan, make_inputs(2, steps, 3), 1e-12)


@pytest.mark.parametrize("steps", [1, 3, 9, 19])
def test_gradcheck(steps):
    inputs = [value.requires_grad_() for value in make_inputs(2, steps, 2)]
    assert gradcheck(diagonal_scan, inputs)


def test_nothing_is_left_unwritten(monkeypatch):
    """Fresh memory holds NaN here, so that an element no kernel writes shows."""
    new_empty, empty_like = torch.Tensor.new_empty, torch.empty_like
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *args, **kw: new_empty(*args, **kw).fill_(float("nan")))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kw: empty_like(*args, **kw).fill_(float("nan")))
    assert torch.empty_like(torch.zeros(1)).isnan().all()
    for steps in LENGTHS:
        states, gradients = run_with_gradients(diagonal_scan, make_inputs(2, steps, 3))
        assert all(value.isfinite().all() for value in [*states, *gradients])


def test_an_empty_sequence_has_no_states_and_zero_gradients():
    states, gradients = run_with_gradients(diagonal_scan, make_inputs(2, 0, 3))
    assert [tuple(x.shape) for x in states] == [(2, 0, 3)] * 2
    assert [tuple(g.shape) for g in gradients] == [(2, 0, 3)] * 4 + [(2, 3)] * 2
    assert all(not g.any() for g in gradients[4:])


def test_views_and_time_invariant_decays_need_no_copies():
    inputs = make_inputs(3, 70, 4)
    a = [value[:1, :1].expand(3, 70, 4) for value in inputs[:2]]
    b = [value.transpose(1, 2).contiguous().transpose(1, 2) for value in inputs[2:4]]
    assert_close(diagonal_scan(*a, *b), reference(*a, *b), 1e-12)


def test_only_what_is_asked_for_gets_a_gradient():
    a_re, a_im, b_re, b_im = make_inputs(2, 40, 3, initial=False)
    b_re.requires_grad_()
    re, _ = diagonal_scan(a_re, a_im, b_re, b_im)
    (gradient,) = torch.autograd.grad(re.sum(), b_re)
    (expected,) = torch.autograd.grad(reference(a_re, a_im, b_re, b_im)[0].sum(), b_re)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_an_island_of_float32(dtype):
    inputs = make_inputs(2, 111, 4, dtype=dtype)
    states, gradients = run_with_gradients(diagonal_scan, inputs)
    assert {x.dtype for x in states} == {torch.float32}
    assert {g.dtype for g in gradients} == {dtype}
    assert_close(states, reference(*[value.double() for value in inputs]), 5e-6)


def test_the_state_carries_over_any_split():
    a_re, a_im, b_re, b_im, x_re, x_im = make_inputs(2, 300, 4)
    whole = diagonal_scan(a_re, a_im, b_re, b_im, x_re, x_im)
    pieces = []
    for part in (slice(0, 1), slice(1, 64), slice(64, 177), slice(177, 300)):
        states = diagonal_scan(a_re[:, part], a_im[:, part], b_re[:, part], b_im[:, part], x_re, x_im)
        x_re, x_im = states[0][:, -1], states[1][:, -1]
        pieces.append(states)
    assert_close([torch.cat(part, 1) for part in zip(*pieces, strict=True)], whole, 1e-12)


def test_wrong_inputs_are_named():
    a_re, a_im, b_re, b_im, x0_re, _ = make_inputs(2, 5, 3)
    with pytest.raises(ValueError, match=r"a_im has shape \(2, 5, 2\)"):
        diagonal_scan(a_re, a_im[..., :2], b_re, b_im)
    with pytest.raises(ValueError, match="both parts"):
        diagonal_scan(a_re, a_im, b_re, b_im, x0_re)
    with pytest.raises(TypeError, match="two real tensors"):
        diagonal_scan(torch.complex(a_re, a_im), a_im, b_re, b_im)
