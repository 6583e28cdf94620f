"""event-ssm against the published implementation: logits, prefixes and every layer's activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

CASES = [
    "dvs_small",
    "dvs_tiny",
    "shd_tiny",
    "ssc_small",
    *(f"tiny_{d}_{p}" for d in ("zoh", "dirac", "async") for p in ("last", "avgpool", "timepool")),
    "tiny_batch_one",
    "tiny_three_stages",
]


def error(actual: torch.Tensor, wanted: np.ndarray) -> float:
    """Largest difference relative to the largest wanted value."""
    assert actual.shape == wanted.shape
    return float(np.abs(actual.numpy() - wanted).max() / np.abs(wanted).max())


def record(model) -> dict[str, torch.Tensor]:
    """Collects the activations of sample 0 under the golden names."""
    seen: dict[str, torch.Tensor] = {}
    for s, stage in enumerate(model.stages):
        for number, layer in enumerate(stage):
            paths = [f"act/stages_{s}/SequenceLayer_{number}"]
            if number == len(stage) - 1:
                paths.append(f"act/stages_{s}")

            def keep(_, __, out, paths=paths):
                for path in paths:
                    seen[f"{path}/x"], seen[f"{path}/dt"] = out[0][0], out[1][0]

            def keep_s5(_, __, out, path=paths[0]):
                seen[f"{path}/S5SSM_0/y"] = out[0]

            layer.register_forward_hook(keep)
            layer.s5.register_forward_hook(keep_s5)
    return seen


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_logits_and_activations_float32(event_ssm_case, name):
    case = event_ssm_case(name)
    model = case.model()
    seen = record(model)
    assert error(model(*case.batch()), case.arrays["logits"]) < 1e-4
    wanted = {key: value for key, value in case.arrays.items() if key.startswith("act/")}
    assert wanted.keys() == seen.keys()
    for key, value in wanted.items():
        assert error(seen[key], value) < 1e-4, key


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_logits_float64(event_ssm_case, name):
    case = event_ssm_case(name)
    assert error(case.model(torch.float64)(*case.batch()), case.arrays["logits_f64"]) < 1e-9


@pytest.mark.parametrize("name", ["dvs_small", "dvs_tiny", "shd_tiny", "ssc_small"])
@torch.no_grad()
def test_prefixes_float64(event_ssm_case, name):
    case = event_ssm_case(name)
    model = case.model(torch.float64)
    tokens, dt, _ = case.batch()
    unit = case.table["data"]["pad_unit"]
    for n, logits in zip(case.arrays["prefix/n"].tolist(), case.arrays["prefix/logits_f64"], strict=True):
        padded = (n // unit + 1) * unit
        row, gap = torch.full((1, padded), -1), torch.zeros(1, padded)
        row[0, :n], gap[0, :n] = tokens[0, :n], dt[0, :n]
        answer = model(row, gap, torch.tensor([n]))[0]
        if n < case.config.total_downsampling:
            assert torch.equal(answer, model.decoder.bias)
        else:
            assert error(answer, logits) < 1e-9
