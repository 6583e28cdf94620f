"""Event2Vec against what the published network computed, stage by stage, in both precisions, with gradients."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from models.event2vec.encoder import mean, pool_pairs
from models.event2vec.events import prepare
from models.event2vec.packing import Order
from models.event2vec.recovery import recovery_loss, recovery_metrics

CLASSIFIERS = ["tiny_flat", "tiny_pool", "tiny_intensity", "dvs_gesture"]
# Largest absolute difference of the published network's own float32 run, per stage; five times that is allowed.
FLOAT32 = {
    "tiny_flat": {"emb": 8e-7, "tpe": 6e-5, "tokens": 6e-5, "layer0": 2.2e-5, "enc": 1.6e-5},
    "tiny_pool": {"emb": 7e-7, "tpe": 2.3e-5, "tokens": 2.3e-5, "layer0": 3.4e-5, "enc": 1e-5},
    "tiny_intensity": {"emb": 3e-7, "tpe": 1.1e-4, "tokens": 6.5e-4, "layer0": 3.4e-5, "enc": 1.4e-5},
    "dvs_gesture": {"emb": 1e-6, "tpe": 4.4e-4, "tokens": 4.4e-4, "layer0": 1.3e-4, "enc": 5.4e-6},
}


@pytest.fixture(scope="module")
def case(event2vec_case):
    return cache(event2vec_case)


def run(case, dtype):
    """Logits, and every stage under the golden files' names with the mask of the positions that it is defined at."""
    model, batch = case.model(dtype), case.batch()
    stages: dict[str, Tensor] = {}

    def keep(name, inside=None):
        def hook(module, inputs, output):
            stages[name] = (inputs[0] if inside == "input" else output).detach()

        return hook

    model.embed_net.register_forward_hook(keep("emb"))
    model.tpe.register_forward_hook(keep("tpe"))
    model.heads.register_forward_hook(keep("pooled", "input"))
    encoders = list(model.backbone_net) if case.config.pool_every_layer else [model.backbone_net]
    layers = [layer for encoder in encoders for layer in encoder.layers]
    layers[0].register_forward_hook(keep("tokens", "input"))
    attention = layers[0].attention.attention
    attention.register_forward_hook(keep("l0_attn"))
    attention.o_proj.register_forward_hook(keep("l0_o", "input"))
    for number, layer in enumerate(layers):
        layer.register_forward_hook(keep(f"layer{number}"))
    for number, encoder in enumerate(encoders):
        encoder.register_forward_hook(keep(f"enc{number}"))
        if number:
            encoder.register_forward_hook(keep(f"pool{number - 1}", "input"))
    with torch.inference_mode():
        logits = model(**batch)
        q, k, v, log_f = attention.project(stages["tokens"])
    stages |= {"l0_q": q.flatten(2), "l0_k": k.flatten(2), "l0_v": v.flatten(2), "l0_logf": log_f}
    inputs = {name: value for name, value in batch.items() if name != "intensity"}
    prepared = prepare(case.config, **inputs, dtype=dtype)
    return logits, stages | {"dt": prepared.gaps, "mask": prepared.mask}


def differences(case, stages):
    """Largest absolute difference of each stage where it is defined."""
    masks = {case.arrays["p"].shape[1]: case.tensor("valid_mask_eff")}
    masks |= {value.shape[1]: torch.from_numpy(value) for key, value in case.arrays.items() if key.endswith("_mask")}
    found = {}
    for name, value in stages.items():
        if name in case.arrays and name != "mask":
            difference = (value.double() - case.tensor(name).double()).abs()
            found[name] = (difference if name == "pooled" else difference[masks[value.shape[1]]]).max().item()
    return found


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_float64_equals_the_published_network_at_every_stage(name, case):
    logits, stages = run(case(name), torch.float64)
    assert (logits - case(name).tensor("logits")).abs().max() <= 1e-9
    assert torch.equal(stages["mask"], case(name).tensor("valid_mask_eff"))
    found = differences(case(name), stages)
    expected = {key for key in case(name).arrays if key.startswith(("emb", "tpe", "dt", "tok", "lay", "enc", "l0_"))}
    assert expected <= set(found) and "pooled" in found
    # The files keep activations in float32.
    assert max(found.values()) <= 2e-6, found


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_float32_stays_within_the_published_networks_own_rounding(name, case):
    logits, stages = run(case(name), torch.float32)
    assert (logits - case(name).tensor("logits")).abs().max() <= 2e-5
    found = differences(case(name), stages)
    assert found["pooled"] <= 2e-5
    last = max((key for key in found if key.startswith("enc")), key=lambda key: int(key[3:]))
    limits = FLOAT32[name] | {last: FLOAT32[name]["enc"]}
    for stage in ("emb", "tpe", "tokens", "layer0", last):
        assert found[stage] <= 5 * limits[stage], stage


@pytest.mark.parametrize("name", ["tiny_pool", "dvs_gesture"])
def test_every_pooling_and_what_counts_after_it(name, case):
    model, batch = case(name).model(torch.float64), case(name).batch()
    inputs = prepare(case(name).config, **batch, dtype=torch.float64)
    with torch.inference_mode():
        x, mask = model.tokens(inputs), inputs.mask
        for number, encoder in enumerate(model.backbone_net):
            x, mask = pool_pairs(encoder(x, Order.of(mask)), mask)
            assert torch.equal(mask, case(name).tensor(f"pool{number}_mask"))
            assert (x - case(name).tensor(f"pool{number}"))[mask].abs().max() <= 2e-6
            assert not x[~mask].any()


@pytest.mark.parametrize("dtype, bound, pooled", [(torch.float64, 1e-9, 1e-6), (torch.float32, 2e-5, 2e-5)])
def test_windows_of_4096_events(dtype, bound, pooled, case):
    full = case("dvs_gesture_full")
    model = full.model(dtype)
    inputs = prepare(full.config, **full.batch(), dtype=dtype)
    with torch.inference_mode():
        features, counted = model.encode(model.tokens(inputs), inputs.mask)
        logits = model(**full.batch())
    assert torch.equal(counted, full.tensor("pool3_mask"))
    assert (mean(features, counted) - full.tensor("pooled")).abs().max() <= pooled
    assert (logits - full.tensor("logits")).abs().max() <= bound


def test_loss_and_every_gradient(case):
    flat = case("tiny_flat")
    for dtype, bound, loss_bound in ((torch.float64, 1e-6, 1e-9), (torch.float32, 5e-5, 2e-6)):
        model = flat.model(dtype)
        logits = model(**flat.batch())
        loss = torch.nn.functional.cross_entropy(logits, flat.tensor("target"), label_smoothing=0.1)
        loss.backward()
        assert abs(loss.item() - float(flat.arrays["loss"])) <= loss_bound
        for name, parameter in model.named_parameters():
            want = flat.tensor(f"grad/classifier.{name}").double()
            error = (parameter.grad.double() - want).abs().max()
            assert error <= bound * want.abs().max(), name


def test_hidden_events_are_recovered_as_published(case):
    ssl = case("tiny_ssl")
    stages = {}
    # In float32 five times the published network's own rounding, as above.
    float32 = {"tokens": 6e-3, "enc0": 3.3e-4, "pre_tanh": 7e-5, "recovered": 3.3e-4}
    for dtype, bound in ((torch.float64, 1e-9), (torch.float32, 2e-6)):
        model = ssl.model(dtype)
        model.heads.register_forward_hook(lambda _, inputs, output: stages.update(recovered=inputs[0], pre_tanh=output))
        model.backbone_net.register_forward_hook(lambda _, inputs, output: stages.update(tokens=inputs[0], enc0=output))
        with torch.inference_mode():
            recovered = model(**ssl.batch())
        assert len(recovered.guess) == int(ssl.arrays["n_predicts"])
        assert abs(recovery_loss(recovered).item() - float(ssl.arrays["loss"])) <= bound
        metrics = recovery_metrics(ssl.config, recovered)
        assert {key.removeprefix("metric/") for key in ssl.arrays if key.startswith("metric/")} == set(metrics)
        for name, value in metrics.items():
            assert value.item() == pytest.approx(float(ssl.arrays[f"metric/{name}"]), rel=1e-6), name
        mask = ssl.tensor("valid_mask")
        for name, value in stages.items():
            difference = (value.double() - ssl.tensor(name).double()).abs()
            wide = 4e-6 if dtype == torch.float64 else float32[name]
            assert (difference[mask] if name in ("tokens", "enc0") else difference).max() <= wide, name
