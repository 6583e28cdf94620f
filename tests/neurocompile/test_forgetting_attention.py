from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import logsigmoid

from neurocompile.ops.forgetting_attention import blocked, forgetting_attention
from neurocompile.ops.forgetting_attention.reference import forgetting_attention as reference

LENGTHS = [1, 2, 63, 100, 111, 127, 128, 129, 257, 300]
HEADS = [(1, 1), (2, 1), (3, 1), (4, 2), (6, 3), (4, 4)]


def make_inputs(batch, steps, heads=2, keys=1, width=8, *, dtype=torch.float64, gate=2.0, seed=0):
    """Unit-size queries, keys and values, and gates whose memory lengths vary around e^gate steps."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(batch, steps, heads, width), *[(batch, steps, keys, width)] * 2, (batch, steps, heads)]
    *qkv, gates = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in shapes)
    return [value.to(dtype) for value in (*qkv, logsigmoid(gate + 1.5 * gates))]


def run_with_gradients(op, inputs, seed=1):
    """The result and the gradients of a random functional of it."""
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    result = op(*leaves)
    draw = torch.Generator().manual_seed(seed)
    weights = torch.randn(result.shape, generator=draw, dtype=torch.float64).to(result.dtype)
    return result, torch.autograd.grad(result, leaves, weights)


def assert_close(actual, expected, relative):
    for name, got, want in zip(("o", "q", "k", "v", "log_f"), actual, expected, strict=False):
        scale = max(want.abs().max().item(), 1e-3)
        error = (got.double() - want.double()).abs().max().item()
        assert error <= relative * scale, f"{name}: {error:.3g} against a largest value of {scale:.3g}"


def against_reference(inputs, relative):
    result, gradients = run_with_gradients(forgetting_attention, inputs)
    wide, wide_gradients = run_with_gradients(reference, [value.double() for value in inputs])
    assert_close([result, *gradients], [wide, *wide_gradients], relative)


@pytest.mark.parametrize("steps", LENGTHS)
def test_result_and_all_gradients_equal_the_reference(steps):
    against_reference(make_inputs(2, steps), 1e-12)


@pytest.mark.parametrize("heads, keys", HEADS)
def test_every_grouping_of_heads_reads_its_own_keys(heads, keys):
    against_reference(make_inputs(2, 141, heads, keys), 1e-12)


@pytest.mark.parametrize("gate", [-4.0, 0.0, 12.0])
def test_short_and_long_memories(gate):
    against_reference(make_inputs(1, 431, gate=gate), 1e-12)


@pytest.mark.parametrize("queries, keys", [(7, 7), (16, 5), (5, 16), (64, 200)])
def test_blocks_of_any_size_agree(queries, keys, monkeypatch):
    monkeypatch.setattr(blocked, "QUERIES", queries)
    monkeypatch.setattr(blocked, "KEYS", keys)
    for steps in (1, 6, 7, 8, 63, 150):
        against_reference(make_inputs(2, steps, 4, 2), 1e-12)


@pytest.mark.parametrize("steps", [63, 111, 1000])
def test_float32_stays_within_rounding(steps):
    against_reference(make_inputs(2, steps, dtype=torch.float32), 1e-5)


def test_float32_keeps_single_gates_in_long_sequences():
    """Prefix sums of thousands, whose float32 differences would be wrong in the fourth place."""
    inputs = make_inputs(1, 2500, 1, width=4, dtype=torch.float32, gate=-1.0)
    inputs[3][:, ::9] = -300.0
    wide = reference(*[value.double() for value in inputs])
    assert_close([forgetting_attention(*inputs)], [wide], 2e-6)
    assert (reference(*inputs) - wide).abs().max() > 1e-3


@pytest.mark.parametrize("steps", [1, 3, 11])
def test_gradcheck(steps, monkeypatch):
    monkeypatch.setattr(blocked, "QUERIES", 4)
    monkeypatch.setattr(blocked, "KEYS", 3)
    assert gradcheck(forgetting_attention, [value.requires_grad_() for value in make_inputs(2, steps, 2, 1, 3)])


def test_padding_at_the_end_changes_neither_results_nor_gradients():
    inputs = make_inputs(1, 150)
    padded = [torch.cat([value, torch.full_like(value[:, :37], fill)], 1) for fill in (7.0,) for value in inputs]
    result, gradients = run_with_gradients(forgetting_attention, inputs)
    draw = torch.Generator().manual_seed(1)
    leaves = [value.requires_grad_() for value in padded]
    whole = forgetting_attention(*leaves)
    weights = torch.randn(result.shape, generator=draw, dtype=torch.float64)
    padded_gradients = torch.autograd.grad(whole[:, :150], leaves, weights)
    assert_close([whole[:, :150], *(g[:, :150] for g in padded_gradients)], [result, *gradients], 1e-13)
    assert all(not g[:, 150:].any() for g in padded_gradients)


def count_scores(monkeypatch):
    """Counts the pairs that are computed."""
    pairs, scores = [], blocked.Lanes.scores

    def counted(self, *where):
        s = scores(self, *where)
        pairs.append(s.numel())
        return s

    monkeypatch.setattr(blocked.Lanes, "scores", counted)
    return pairs


def test_only_heads_that_forget_leave_keys_out(monkeypatch):
    slow, fast = make_inputs(1, 1500, 1, gate=12.0), make_inputs(1, 1500, 1, gate=1.0)
    pairs = count_scores(monkeypatch)
    used = {}
    for name, inputs in (("slow", slow), ("fast", fast)):
        pairs.clear()
        forgetting_attention(*inputs)
        used[name] = sum(pairs)
    both = [torch.cat(pair, 0) for pair in zip(slow, fast, strict=True)]
    pairs.clear()
    forgetting_attention(*both)
    assert used["slow"] >= 1500 * 1500 / 2
    assert 3 * used["fast"] < used["slow"]
    assert sum(pairs) == sum(used.values())


@pytest.mark.parametrize("gate", [-1.0, 0.5, 2.0, 4.0])
def test_what_is_left_out_is_below_the_stated_bound(gate, monkeypatch):
    """In float64 with float32's threshold, rounding is out of sight and the omission alone remains."""
    inputs = make_inputs(1, 1300, 2, gate=gate)
    inputs[0] *= 3
    # Values that all point one way make the omitted part as visible as it can be.
    inputs[2] = inputs[2].abs()
    exact, exact_gradients = run_with_gradients(reference, inputs)
    unit = 2.0**-24
    monkeypatch.setitem(blocked.PRECISION, torch.float64, unit)
    pairs = count_scores(monkeypatch)
    result, gradients = run_with_gradients(forgetting_attention, inputs)
    error = (result - exact).abs().max().item()
    assert error <= 2 * unit * inputs[2].abs().max().item()
    assert_close([result, *gradients], [exact, *exact_gradients], 1e-5)
    assert sum(pairs) < 2 * 2 * 1300 * 1300 / 2


def test_nothing_is_left_unwritten(monkeypatch):
    """Fresh memory holds NaN here, so that an element no block writes shows."""
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kw: empty_like(*args, **kw).fill_(float("nan")))
    for gate in (0.0, 6.0):
        result, gradients = run_with_gradients(forgetting_attention, make_inputs(2, 300, gate=gate))
        assert all(value.isfinite().all() for value in (result, *gradients))


def test_an_empty_sequence_has_an_empty_answer():
    result, gradients = run_with_gradients(forgetting_attention, make_inputs(2, 0))
    assert result.shape == (2, 0, 2, 8)
    assert [tuple(g.shape) for g in gradients] == [(2, 0, 2, 8), (2, 0, 1, 8), (2, 0, 1, 8), (2, 0, 2)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_an_island_of_float32(dtype):
    inputs = make_inputs(2, 111, dtype=dtype)
    result, gradients = run_with_gradients(forgetting_attention, inputs)
    assert result.dtype == torch.float32
    assert {g.dtype for g in gradients} == {dtype}
    assert_close([result], [reference(*[value.double() for value in inputs])], 5e-6)


def test_autocast_on_a_processor_changes_nothing():
    """Published training is `bf16-mixed`."""
    inputs = make_inputs(2, 300, dtype=torch.float32)
    want, gradients = run_with_gradients(forgetting_attention, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        result, found = run_with_gradients(forgetting_attention, inputs)
    assert torch.equal(result, want)
    assert all(torch.equal(*pair) for pair in zip(found, gradients, strict=True))


def test_only_what_is_asked_for_gets_a_gradient():
    q, k, v, log_f = make_inputs(1, 140)
    log_f.requires_grad_()
    (gradient,) = torch.autograd.grad(forgetting_attention(q, k, v, log_f).square().sum(), log_f)
    (expected,) = torch.autograd.grad(reference(q, k, v, log_f).square().sum(), log_f)
    torch.testing.assert_close(gradient, expected)


def test_memory_grows_with_the_length_and_not_with_its_square(monkeypatch):
    largest = []
    for steps in (512, 2048):
        pairs = count_scores(monkeypatch)
        forgetting_attention(*make_inputs(1, steps, gate=12.0))
        largest.append(max(pairs))
        monkeypatch.undo()
    assert largest[0] == largest[1] <= 2 * blocked.QUERIES * max(blocked.QUERIES, blocked.KEYS)


def test_wrong_inputs_are_named():
    q, k, v, log_f = make_inputs(2, 5, 4, 2)
    with pytest.raises(ValueError, match=r"v has shape \(2, 5, 2, 7\)"):
        forgetting_attention(q, k, v[..., :7], log_f)
    with pytest.raises(ValueError, match="K a divisor of 4"):
        forgetting_attention(q, k[:, :, :1].expand(2, 5, 3, 8), v, log_f)
    with pytest.raises(ValueError, match=r"log_f has shape \(2, 5, 3\), expected \(2, 5, 4\)"):
        forgetting_attention(q, k, v, log_f[..., :3])
    with pytest.raises(TypeError, match="k is torch.int64"):
        forgetting_attention(q, k.long(), v, log_f)
