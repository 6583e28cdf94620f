"""The op `lif` as the published neurons: EAS-SNN's golden sampler, SpikingJelly where it is installed, and by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from neurocompile.ops.lif import Neuron, lif, step

PARAMETRIC = Neuron()
SAMPLER = Neuron(v_reset=0.0, strict=True, surrogate="rectangle", alpha=1.0)
RESNET = Neuron(v_reset=0.0, detach_reset=True)


def inputs_of(steps, dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    return (0.3 + 1.2 * torch.randn(steps, 5, 7, generator=draw, dtype=torch.float64)).to(dtype)


def test_the_published_neurons_by_hand():
    """Two steps with a constant input of 0.75 and a decay of 1/2; membranes 0.75, then 1.125."""
    x = torch.full((2, 1), 0.75)
    for neuron, last in ((PARAMETRIC, 0.125), (RESNET, 0.0), (SAMPLER, 0.0)):
        spikes, v = lif(x, 0.5, None, neuron)
        assert spikes.flatten().tolist() == [0, 1]
        assert v.item() == last


class Sampler(nn.Module):
    """EAS-SNN's recurrent sampler, written with `step`; returns membranes and spikes, newest bin first."""

    def __init__(self, depth, kernel, neuron):
        super().__init__()
        self.neuron = neuron

        def stack():
            layers = [nn.Conv2d(2, 4, kernel, padding=kernel // 2)]
            for _ in range(depth - 1):
                layers += [nn.ReLU(), nn.Conv2d(4, 4, kernel, padding=kernel // 2)]
            return nn.Sequential(*layers)

        self.input_conv, self.gate_conv = stack(), stack()

    def forward(self, x):
        v = s = torch.zeros_like(x[0])
        membranes, spikes = [], []
        for t in reversed(range(len(x))):
            given, fed = self.input_conv(x[t]), self.gate_conv(s)
            gate, current = (given + fed).chunk(2, 1)
            s, u, v = step(current, gate.sigmoid(), v, self.neuron)
            membranes.append(u)
            spikes.append(s)
        return torch.stack(membranes), torch.stack(spikes)


def golden_sampler(golden, case):
    """Membranes and spikes of one golden case, the sampler that made them and the arrays."""
    data = golden.arrays("eas_snn_sampler")
    options = json.loads(str(data["cases_json"]))[case]
    neuron = Neuron(v_reset=options["vreset"], strict=True, surrogate="rectangle", alpha=1.0)
    sampler = Sampler(options["depth"], options["k"], neuron)
    weights = f"w_d{options['depth']}/"
    state = {key.removeprefix(weights): torch.from_numpy(data[key]) for key in data if key.startswith(weights)}
    sampler.load_state_dict(state)
    x = torch.from_numpy(data["events"].astype(np.float32))[:, 0].transpose(0, 1)
    return *sampler(x), sampler, data


@pytest.mark.parametrize("case", [0, 2, 18, 20])
def test_the_golden_samplers_spikes(case, golden):
    """Depth 1 and 2, hard and soft reset; the other cases differ in the readout only."""
    _, spikes, _, data = golden_sampler(golden, case)
    shape = tuple(data[f"spkshape_{case}"])
    wanted = np.unpackbits(data[f"spk_{case}"])[: math.prod(shape)].reshape(shape)
    assert np.array_equal(spikes.detach().numpy().astype(np.uint8), wanted)


@pytest.mark.parametrize("case", [0, 18])
def test_the_golden_samplers_gradients(case, golden):
    membranes, spikes, sampler, data = golden_sampler(golden, case)
    # The published readout: membranes summed up to the first spike, written by those that spike alone.
    alive, total, out = torch.ones_like(spikes[0]), 0.0, 0.0
    for u, s in zip(membranes, spikes, strict=True):
        total = total + u
        out = out + alive * s.detach() * s * total
        alive = alive * (1 - s.detach())
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    for name, parameter in sampler.named_parameters():
        want = torch.from_numpy(data[f"grad_{case}/{name}"])
        assert (parameter.grad - want).abs().max() <= 1e-4 * want.abs().max(), name


def spikingjelly_neuron(kind, **options):
    neuron = pytest.importorskip(
        "spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed", exc_type=ImportError
    )
    surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate", exc_type=ImportError)
    return getattr(neuron, kind)(surrogate_function=surrogate.ATan(), step_mode="m", **options)


def test_spikingjellys_parametric_neuron_is_the_one_of_eas_snn():
    x = inputs_of(9, torch.float32)
    peer = spikingjelly_neuron(
        "ParametricLIFNode", init_tau=2.0, decay_input=False, v_threshold=1.0, v_reset=None, detach_reset=False
    )
    peer.w.data.fill_(0.3)
    w = torch.tensor(0.3, requires_grad=True)
    one, two = (x.clone().requires_grad_() for _ in range(2))
    spikes, last = lif(one, 1 - w.sigmoid())
    theirs = peer(two)
    assert torch.equal(spikes, theirs)
    torch.testing.assert_close(last, peer.v, rtol=1e-6, atol=1e-6)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    (spikes * weights).sum().backward()
    (theirs * weights).sum().backward()
    torch.testing.assert_close(one.grad, two.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(w.grad, peer.w.grad.reshape(()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("v_reset, decay_input", [(0.0, False), (0.0, True), (-0.25, False), (None, True)])
@pytest.mark.parametrize("detach_reset", [True, False])
def test_spikingjellys_neuron_is_the_one_of_i2e(v_reset, decay_input, detach_reset):
    x = inputs_of(9)
    options = {"v_threshold": 1.0, "v_reset": v_reset, "detach_reset": detach_reset, "decay_input": decay_input}
    peer = spikingjelly_neuron("LIFNode", tau=2.0, **options).double()
    one, two = (x.clone().requires_grad_() for _ in range(2))
    start = torch.full(x.shape[1:], v_reset or 0.0, dtype=x.dtype)
    spikes, _ = lif(one, 0.5, start, Neuron(v_reset=v_reset, detach_reset=detach_reset), decay_input=decay_input)
    theirs = peer(two)
    assert torch.equal(spikes, theirs)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    (spikes * weights).sum().backward()
    (theirs * weights).sum().backward()
    torch.testing.assert_close(one.grad, two.grad, rtol=1e-9, atol=1e-9)


class Residual:
    """An I2E network, MS-ResNet-18, in evaluation mode: lif before every convolution, residuals on membrane inputs."""

    def __init__(self, state):
        self.state = {key: torch.from_numpy(value) for key, value in state.items()}
        self.counts = {}

    def fire(self, name, x):
        spikes, _ = lif(x, 0.5, None, RESNET)
        self.counts[name] = spikes.flatten(2).sum(2).long()
        return spikes

    def layer(self, conv, norm, x, stride=1, padding=0):
        steps = x.shape[:2]
        x = torch.conv2d(x.flatten(0, 1), self.state[f"{conv}.weight"], stride=stride, padding=padding)
        mean, var, weight, bias = (
            self.state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return torch.nn.functional.batch_norm(x, mean, var, weight, bias).unflatten(0, steps)

    def __call__(self, x):
        x = self.layer("conv1", "bn1", x, 2, 3)
        x = torch.max_pool2d(x.flatten(0, 1), 3, 2, 1).unflatten(0, x.shape[:2])
        for stage in range(1, 5):
            for block in range(2):
                at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                y = self.layer(f"{at}.conv1", f"{at}.bn1", self.fire(f"{at}.sn1", x), stride, 1)
                y = self.layer(f"{at}.conv2", f"{at}.bn2", self.fire(f"{at}.sn2", y), 1, 1)
                if stride == 2:
                    skipped = self.fire(f"{at}.downsample.0", x)
                    x = self.layer(f"{at}.downsample.1", f"{at}.downsample.2", skipped, 2)
                x = x + y
        spikes = self.fire("sn1", x.mean((-2, -1)).unsqueeze(-1)).squeeze(-1)
        return (spikes @ self.state["fc.weight"].T + self.state["fc.bias"]).mean(0)


def test_the_golden_network_of_i2e_to_the_last_bit(golden):
    """Weights for which every sum is exact: many membranes are at the threshold, so `>=` and the reset are tested."""
    data = golden.arrays("i2e_snn_exact_resnet18_w8")
    network = Residual({key.removeprefix("sd/"): data[key] for key in data if key.startswith("sd/")})
    shape = tuple(data["event_shape"])
    events = np.unpackbits(data["events_packed"], axis=1)[:, : math.prod(shape)].reshape(-1, *shape)
    logits = network(torch.from_numpy(events).float().transpose(0, 1))
    assert np.array_equal(logits.numpy(), data["logits"])
    wanted = {key.removeprefix("spikes/"): data[key] for key in data if key.startswith("spikes/")}
    assert set(wanted) <= set(network.counts)
    for name, counts in wanted.items():
        assert np.array_equal(network.counts[name].numpy(), counts), name
