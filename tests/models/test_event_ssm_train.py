"""event-ssm's training step against the published implementation: gradients, batch statistics, four updates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from models.event_ssm.flax import flax_from_state_dict
from train.optim import parameter_groups, schedule


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def test_tiny_train(event_ssm_case, dtype):
    case = event_ssm_case("tiny_train")
    arrays, options = case.arrays, case.table["optimizer"]
    model = case.model(dtype).train()
    keys = ("ssm_lr", "lr_factor", "ssm_weight_decay", "weight_decay")
    optimiser = AdamW(parameter_groups(model, *(options[key] for key in keys)), betas=(0.9, 0.999), eps=1e-8)
    rate = schedule(options["schedule"], options["warmup_steps"], options["total_steps"])
    scheduler = LambdaLR(optimiser, rate)
    every = options["accumulation_steps"]
    before = {name: array.astype(np.float64) for name, array in case.flat.items()}

    for number in range(8):
        logits = model(*case.batch(f"batch/{number}/"))
        loss = cross_entropy(logits, torch.from_numpy(arrays[f"batch/{number}/targets"]).to(dtype))
        assert loss.item() == pytest.approx(arrays["losses"][number], rel=1e-4)
        (loss / every).backward()
        if number == 0:
            check_first(case, model, logits.detach().numpy(), every)
        if number % every == every - 1:
            optimiser.step()
            scheduler.step()
            optimiser.zero_grad()

    final = flax_from_state_dict(model.state_dict(), case.config)
    assert {f"final/{path}" for path in final} == {key for key in arrays if key.startswith("final/")}
    for path, value in final.items():
        wanted = arrays[f"final/{path}"]
        change = np.abs(wanted - before[path]).max()
        assert np.abs(value - wanted).max() < 1e-3 * change + 1e-5, path


def check_first(case, model, logits, every) -> None:
    """Compares the first micro-batch: logits, statistics and gradients."""
    arrays = case.arrays
    assert close(logits, arrays["micro0/logits_train"], 1e-4)
    state = flax_from_state_dict(model.state_dict(), case.config)
    for path, value in state.items():
        if path.startswith("batch_stats/"):
            assert close(value, arrays[f"micro0/after/{path}"], 1e-4), path
    gradients = {name: parameter.grad * every for name, parameter in model.named_parameters()}
    gradients |= dict(model.named_buffers())
    for path, value in flax_from_state_dict(gradients, case.config).items():
        if path.startswith("params/"):
            assert close(value, arrays["micro0/grad/" + path.removeprefix("params/")], 1e-3), path


def close(actual: np.ndarray, wanted: np.ndarray, bound: float) -> bool:
    """Whether the largest difference is below `bound` times the largest wanted value."""
    assert actual.shape == wanted.shape
    return bool(np.abs(actual - wanted).max() <= bound * np.abs(wanted).max())
