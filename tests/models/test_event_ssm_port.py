"""The PyTorch derivative: golden logits and stages, strict loading, exact recurrence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.event_ssm.port import EventSSMPort
from models.event_ssm.port_config import EventSSMPortConfig
from models.families.event_ssm_port import EventSSMPortFamily
from runtime.errors import UserError

SETTINGS = {
    "main": {},
    "post_last": {
        "discretization": "dirac",
        "pooling_mode": "last",
        "classification_mode": "last",
        "prenorm": False,
    },
    "avg_attn": {"discretization": "zoh", "pooling_mode": "avgpool", "classification_mode": "attnpool"},
    "avg_pool": {
        "discretization": "zoh",
        "pooling_mode": "avgpool",
        "classification_mode": "pool",
        "prenorm": False,
    },
}


@pytest.fixture
def port(golden, shared):
    table = golden.json("event_ssm_port_tiny_config")
    state = torch.load(shared / "golden" / "event_ssm_port_tiny_model.pt", weights_only=True)
    return EventSSMPortConfig.from_upstream(table), state["state_dict"], golden.arrays("event_ssm_port_tiny")


def error(actual, wanted):
    assert actual.shape == wanted.shape
    return np.abs(actual.numpy() - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("dtype", "suffix", "bound"), [(torch.float32, "", 1e-4), (torch.float64, "_f64", 1e-9)])
@torch.no_grad()
def test_golden(port, setting, dtype, suffix, bound):
    config, state, arrays = port
    model = EventSSMPort(replace(config, **SETTINGS[setting]))
    model.load_state_dict(state)
    model.to(dtype).eval()
    seen = {}
    for s, stage in enumerate(model.encoder.stages):
        stage.register_forward_hook(lambda _, __, out, s=s: seen.update({f"stage{s}": out[0]}))
    batch = (torch.from_numpy(arrays[key]) for key in ("tokens", "timesteps", "lengths"))
    seen["logits"] = model(*batch)
    for key, value in seen.items():
        assert error(value, arrays[f"{setting}/{key}{suffix}"]) < bound, key


@torch.no_grad()
def test_exact_recurrence_agrees_while_the_product_is_large(port):
    config, state, _ = port
    published, exact = EventSSMPort(config), EventSSMPort(config, recurrence="exact")
    for model in (published, exact):
        model.load_state_dict(state)
        model.double().eval()
    torch.manual_seed(0)
    tokens, lengths = torch.randint(0, 240, (2, 64)), torch.tensor([64, 40])
    short, long = torch.full((2, 64), 1e-3), torch.full((2, 64), 100.0)
    torch.testing.assert_close(published(tokens, short, lengths), exact(tokens, short, lengths), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(published(tokens, long, lengths), exact(tokens, long, lengths), rtol=1e-2, atol=1e-2)


def test_loading_is_strict(port):
    config, state, _ = port
    family = EventSSMPortFamily()
    missing = {name: value for name, value in state.items() if name != "decoder.bias"}
    with pytest.raises(UserError, match=r"decoder\.bias missing"):
        family.state_dict(missing, config)
    with pytest.raises(UserError, match=r"attn_pool\.weight.* unexpected"):
        family.state_dict(state, replace(config, attention_pool=False))


@torch.no_grad()
def test_too_short_is_the_bias(port):
    config, state, _ = port
    for mode in ("pool", "timepool", "last", "attnpool"):
        model = EventSSMPort(replace(config, classification_mode=mode)).eval()
        model.load_state_dict(state)
        for length in (3, 40):
            logits = model(torch.zeros(1, length, dtype=torch.long), torch.ones(1, length), torch.tensor([3]))
            torch.testing.assert_close(logits[0], model.decoder.bias)


def test_config_errors(port):
    config, *_ = port
    for changes in (
        {"num_stages": 3},
        {"attention_pool": False, "classification_mode": "attnpool"},
        {"pooling_mode": "max"},
        {"d_model": 0},
    ):
        with pytest.raises(UserError):
            replace(config, **changes)
    with pytest.raises(UserError, match="recurrence"):
        EventSSMPort(config, recurrence="fast")
