"""The op `lif`: every face against the definition, published neurons, gradients, odd sizes and carried membranes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neurocompile.ops.lif import Neuron, blocked, lif, step
from neurocompile.ops.lif.neuron import SURROGATES
from neurocompile.ops.lif.reference import lif as reference
from neurocompile.ops.lif.surrogate import derivative, fire

NAMES = ("spikes", "last", "x", "decay", "v")
PARAMETRIC = Neuron()
SAMPLER = Neuron(v_reset=0.0, strict=True, surrogate="rectangle", alpha=1.0)
RESNET = Neuron(v_reset=0.0, detach_reset=True)
NEURONS = {
    "EAS-SNN": PARAMETRIC,
    "sampler": SAMPLER,
    "I2E": RESNET,
    "soft, detached": Neuron(threshold=0.7, surrogate="sigmoid", alpha=4.0, detach_reset=True),
    "hard, elsewhere": Neuron(threshold=0.5, v_reset=-0.25, strict=True, surrogate="sigmoid", alpha=1.5),
}
STEPS = [1, 2, 3, 8, 63, 100]
DECAYS = {"one": (), "channel": (5, 1), "neuron": (5, 7), "step": (-1, 1, 1), "step and neuron": (-1, 5, 7)}


def make_inputs(steps, shape=(5, 7), decay="one", dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = 0.3 + 1.2 * torch.randn(steps, *shape, generator=draw, dtype=torch.float64)
    sizes = [steps if size < 0 else size for size in DECAYS[decay]]
    d = torch.rand(sizes, generator=draw, dtype=torch.float64)
    v = torch.randn(shape, generator=draw, dtype=torch.float64)
    return [value.to(dtype) for value in (x, d, v)]


def leaking_to_rest(x, decay, v, neuron):
    """The definition, with the leak towards v_reset that SpikingJelly's neurons have."""
    rest = neuron.v_reset or 0.0
    return reference(x + (1 - decay) * rest, decay, v, neuron)


def run(op, inputs, neuron):
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    results = op(*leaves, neuron)
    draw = torch.Generator().manual_seed(1)
    total = sum(
        (result * torch.randn(result.shape, generator=draw, dtype=torch.float64).to(result.dtype)).sum()
        for result in results
    )
    return [*results, *torch.autograd.grad(total, leaves)]


def against_reference(inputs, neuron, relative):
    got, want = run(lif, inputs, neuron), run(leaking_to_rest, inputs, neuron)
    assert torch.equal(got[0], want[0])
    for name, actual, expected in zip(NAMES, got, want, strict=True):
        assert actual.dtype == expected.dtype, name
        scale = max(expected.abs().max().item(), 1e-3)
        assert (actual - expected).abs().max().item() <= relative * scale, name
    return got


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("steps", STEPS)
def test_spikes_membranes_and_all_gradients_equal_the_definition(steps, name):
    spikes = against_reference(make_inputs(steps), NEURONS[name], 1e-12)[0]
    assert 0.05 < spikes.mean() < 0.7


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("name", ["EAS-SNN", "sampler"])
def test_decays_of_every_shape_that_broadcasts(name, decay):
    against_reference(make_inputs(9, decay=decay), NEURONS[name], 1e-12)


@pytest.mark.parametrize("size", [1, 4, 35])
def test_blocks_of_any_size_agree(size, monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK", size)
    against_reference(make_inputs(6, decay="neuron"), PARAMETRIC, 1e-12)


@pytest.mark.parametrize("shape", [(), (1,), (3, 2, 5)])
def test_layers_of_any_rank(shape):
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn(4, *shape, generator=draw), torch.tensor(0.5), torch.randn(shape, generator=draw)]
    against_reference(inputs, RESNET, 1e-6)


@pytest.mark.parametrize("name", NEURONS)
def test_float32_fires_as_the_definition_in_float32(name):
    """Rounded as the definition rounds, so spikes do not differ even where a membrane is at the threshold."""
    neuron = NEURONS[name]
    inputs = make_inputs(40, shape=(41, 7), dtype=torch.float32)
    with torch.no_grad():
        got, want = lif(*inputs, neuron), leaking_to_rest(*inputs, neuron)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


def test_a_membrane_at_the_threshold():
    """0.5 * 1 + 0.5 reaches 1 exactly: enough for one neuron, not for the other."""
    x, v = torch.tensor([[0.5]]), torch.tensor([1.0])
    assert lif(x, 0.5, v, RESNET)[0].item() == 1
    assert lif(x, 0.5, v, SAMPLER)[0].item() == 0


@pytest.mark.parametrize("name", NEURONS)
def test_membranes_carry_a_sequence_over_any_split(name):
    neuron = NEURONS[name]
    x, decay, v = make_inputs(50, decay="step and neuron", dtype=torch.float32)
    spikes, last = lif(x, decay, v, neuron)
    pieces, now = [], v
    for begin, end in ((0, 1), (1, 18), (18, 50)):
        part, now = lif(x[begin:end], decay[begin:end], now, neuron)
        pieces.append(part)
    assert torch.equal(torch.cat(pieces), spikes)
    assert torch.equal(now, last)
    rest = neuron.v_reset or 0.0
    singles, now = [], v
    for t in range(50):
        s, h, now = step(x[t] + (1 - decay[t]) * rest, decay[t], now, neuron)
        assert torch.equal(s.bool(), h > neuron.threshold if neuron.strict else h >= neuron.threshold)
        singles.append(s)
    assert torch.equal(torch.stack(singles), spikes)
    assert torch.equal(now, last)


def test_half_precision_inputs_keep_a_float32_membrane():
    x, decay, v = make_inputs(30, dtype=torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        narrow = x.to(dtype)
        spikes, last = lif(narrow, decay, v)
        wide, wide_last = lif(narrow.float(), decay, v)
        assert spikes.dtype == dtype
        assert last.dtype == torch.float32
        assert torch.equal(spikes.float(), wide)
        assert torch.equal(last, wide_last)


def test_an_input_that_is_scaled_too():
    x, decay, v = make_inputs(20)
    got = lif(x, decay, v, RESNET, decay_input=True)
    # SpikingJelly's form: v + (x - v) / tau.
    h, spikes = v, []
    for t in range(20):
        h = h + (x[t] - h) * (1 - decay)
        spikes.append((h >= 1).double())
        h = torch.where(h >= 1, 0.0, h)
    assert torch.equal(got[0], torch.stack(spikes))
    torch.testing.assert_close(got[1], h, rtol=1e-12, atol=1e-12)


# Functions whose derivatives the surrogates are.
SMOOTH = {
    "atan": lambda x, a: math.atan(math.pi / 2 * a * x) / math.pi,
    "rectangle": lambda x, a: min(max(a * x, -0.5), 0.5),
    "sigmoid": lambda x, a: 1 / (1 + math.exp(-a * x)),
}


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("alpha", [1.0, 2.0, 4.0])
def test_surrogates_are_derivatives_that_integrate_to_one(surrogate, alpha):
    smooth, d = SMOOTH[surrogate], 1e-6
    for x in (-3.0, -0.4, -0.03, 0.0, 0.11, 0.9):
        wanted = (smooth(x + d, alpha) - smooth(x - d, alpha)) / (2 * d)
        assert derivative(torch.tensor(x, dtype=torch.float64), surrogate, alpha).item() == pytest.approx(wanted, 1e-6)
    grid = torch.linspace(-2e3, 2e3, 4_000_001, dtype=torch.float64) + 3e-4
    assert derivative(grid, surrogate, alpha).sum().item() * 1e-3 == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("name", NEURONS)
def test_gradients_are_finite_differences_of_spikes_that_move_as_the_surrogate_says(name):
    """Near the base point a spike is replaced by its value there plus the smooth function's change; all in float64."""
    neuron, steps = NEURONS[name], 12
    x, decay, v = make_inputs(steps, shape=(3,), decay="one")
    _, _, d_x, d_decay, d_v = run(lif, [x, decay, v], neuron)
    draw = torch.Generator().manual_seed(1)
    weights = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in (x.shape, v.shape)]
    smooth, bases = SMOOTH[neuron.surrogate], []

    def loss(x, decay, v, first=False):
        total = 0.0
        rest = neuron.v_reset or 0.0
        for t in range(steps):
            h = rest + decay * (v - rest) + x[t]
            if first:
                bases.append(h)
            base = bases[t]
            hard = (base > neuron.threshold if neuron.strict else base >= neuron.threshold).double()
            now, old = (
                torch.tensor([smooth(float(h) - neuron.threshold, neuron.alpha) for h in each], dtype=h.dtype)
                for each in (h, base)
            )
            s = hard + now - old
            reset = hard if neuron.detach_reset else s
            v = h - neuron.threshold * reset if neuron.v_reset is None else (1 - reset) * h + neuron.v_reset * reset
            total = total + (s * weights[0][t]).sum()
        return float(total + (v * weights[1]).sum())

    loss(x, decay, v, first=True)
    d = 1e-6

    def difference(value, index):
        plus, minus = value.clone(), value.clone()
        plus[index] += d
        minus[index] -= d
        given = [[plus if other is value else other for other in (x, decay, v)] for plus in (plus, minus)]
        return (loss(*given[0]) - loss(*given[1])) / (2 * d)

    for value, gradient in ((x, d_x), (decay, d_decay), (v, d_v)):
        for index in np.ndindex(tuple(value.shape)):
            assert difference(value, index) == pytest.approx(gradient[index].item(), rel=1e-5, abs=1e-7), name


def test_a_loss_of_one_result_alone():
    inputs = [value.requires_grad_() for value in make_inputs(7)]
    for part in range(2):
        got = torch.autograd.grad(lif(*inputs)[part].sum(), inputs)
        want = torch.autograd.grad(reference(*inputs, PARAMETRIC)[part].sum(), inputs)
        for actual, expected in zip(got, want, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_gradients_of_strided_results_and_inputs():
    inputs = [value.transpose(-1, -2) if value.dim() > 1 else value for value in make_inputs(7)]
    x, decay, v = (value.requires_grad_() for value in inputs)
    for op in (lif, lambda *given: reference(*given, PARAMETRIC)):
        spikes, last = op(x, decay, v)
        ((spikes.transpose(1, 2) * torch.arange(7.0)).sum() + last.mean()).backward()
    # Both ran backwards into the same leaves: the sum is twice either.
    both = x.grad.clone()
    x.grad = None
    spikes, last = lif(x, decay, v)
    ((spikes.transpose(1, 2) * torch.arange(7.0)).sum() + last.mean()).backward()
    torch.testing.assert_close(2 * x.grad, both, rtol=1e-12, atol=1e-12)


def test_unwritten_memory_would_show():
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    try:
        assert all(value.isfinite().all() for value in run(lif, make_inputs(5), PARAMETRIC))
    finally:
        torch.use_deterministic_algorithms(False)


def test_wrong_shapes_types_and_neurons_are_named():
    x, decay, v = make_inputs(5)
    with pytest.raises(ValueError, match="x has shape .* T at least 1"):
        lif(x[:0], decay, v)
    with pytest.raises(ValueError, match=r"v has shape \(7,\), expected \(5, 7\)"):
        lif(x, decay, v[0])
    with pytest.raises(ValueError, match=r"decay has shape \(2,\), which does not broadcast to \(5, 5, 7\)"):
        lif(x, decay.expand(2), v)
    with pytest.raises(TypeError, match="x is torch.int64"):
        lif(x.long(), decay, v)
    with pytest.raises(ValueError, match="surrogate 'arc' does not exist; there are: atan"):
        Neuron(surrogate="arc")
    with pytest.raises(ValueError, match="alpha is 0"):
        Neuron(alpha=0)
    with pytest.raises(ValueError, match="have to be finite"):
        Neuron(threshold=float("nan"))


def test_the_operator_keeps_torchs_contract():
    """Schema, fake kernels and autograd registration, checked by torch itself."""
    inputs = tuple(value.requires_grad_() for value in make_inputs(6, decay="neuron", dtype=torch.float32))
    fields = (1.0, 0.0, True, "rectangle", 1.0, False)
    torch.library.opcheck(torch.ops.neurocompile.lif_states.default, (*inputs, *fields, True))
    with torch.no_grad():
        torch.library.opcheck(
            torch.ops.neurocompile.lif_states.default, (*(value.detach() for value in inputs), *fields, False)
        )


def test_a_spike_without_gradient_is_a_comparison():
    h = torch.tensor([0.9, 1.0, 1.1])
    assert fire(h, PARAMETRIC).tolist() == [0, 1, 1]
    assert fire(h.requires_grad_(), SAMPLER).tolist() == [0, 0, 1]
