"""Where Event2Vec is easy to get wrong: what holds must equal the published network, what has no value is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.event2vec import Event2Vec, Event2VecConfig
from models.event2vec.encoder import EncoderLayer
from models.event2vec.events import gaps, prepare
from models.event2vec.packing import Order
from models.event2vec.recovery import Event2VecRecovery, Recovered, recovery_loss
from networks import scattered
from neurocompile.ops.forgetting_attention.reference import forgetting_attention as reference
from runtime.errors import UserError

CONFIG = Event2VecConfig(
    polarities=2, height=12, width=20, d_model=16, d_feedforward=24, nheads=4, n_layers=2, num_classes=3
)


def make_model(kind=Event2Vec, **changes):
    return scattered(lambda: kind(replace(CONFIG, **changes)).double())


def make_batch(batch=2, length=32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    p, y, x = (torch.randint(0, high, (batch, length), generator=draw) for high in (2, 12, 20))
    t = torch.randint(0, 300, (batch, length), generator=draw).cumsum(1)
    return {"p": p, "y": y, "x": x, "t": t, "mask": torch.ones(batch, length, dtype=torch.bool)}


def pad(batch, count):
    """Right padding as a collated batch has it."""
    fill = {name: False if name == "mask" else -1 for name in batch}
    return {
        name: torch.nn.functional.pad(value, (0, count), value=fill[name]) if count else value
        for name, value in batch.items()
    }


@torch.inference_mode()
def answer(model, batch):
    return model(**batch)


def test_a_batch_is_not_changed_and_answers_the_same_twice():
    model = make_model()
    batch = {name: value.float() if name != "mask" else value for name, value in make_batch().items()}
    batch["x"] += 0.3
    before = {name: value.clone() for name, value in batch.items()}
    first = answer(model, batch)
    assert all(torch.equal(batch[name], before[name]) for name in batch)
    assert torch.equal(answer(model, batch), first)


def test_time_has_no_unit_and_no_origin():
    model, batch = make_model(), make_batch()
    moved = batch | {"t": batch["t"] * 7 + 10**15}
    assert (answer(model, moved) - answer(model, batch)).abs().max() <= 1e-12


def test_times_are_normalised_before_they_are_subtracted():
    t = torch.tensor([[0, 1, 5_900_002, 6_000_000]])
    batch = make_batch(1, 4) | {"t": t}
    found = prepare(CONFIG, **batch, dtype=torch.float32).gaps
    scaled = t.float() / 6_000_000
    assert torch.equal(found[:, 1:], scaled[:, 1:] - scaled[:, :-1])
    assert not torch.equal(found[:, 1:], (t[:, 1:] - t[:, :-1]).float() / 6_000_000)


def test_the_first_norm_sees_the_absolute_scale_of_gaps():
    """Its eps outweighs the variance, so that neither another eps nor a scale-free norm would do."""
    model = make_model()
    small = torch.rand(1, 9, generator=torch.Generator().manual_seed(1)).double() * 2.4e-4
    assert (model.tpe(small) - model.tpe(2 * small)).abs().max() > 1e-2
    assert model.tpe.conv[2].eps == 1e-5


@pytest.mark.parametrize("length", [1, 2, 32])
def test_equal_times_are_refused(length):
    batch = make_batch(2, length)
    batch["t"][1] = 5
    batch["t"][0] = torch.arange(length)
    if length == 1:
        with pytest.raises(UserError, match="sample 0: all its 1 events have the same time"):
            make_model()(**batch)
    else:
        with pytest.raises(UserError, match=f"sample 1: all its {length} events have the same time"):
            make_model()(**batch)


def test_some_equal_times_are_fine():
    batch = make_batch()
    batch["t"][:, 3:20] = batch["t"][:, 3:4]
    assert answer(make_model(), batch).isfinite().all()


def test_a_sample_of_padding_alone_is_refused():
    batch = make_batch()
    for name, value in batch.items():
        value[1] = False if name == "mask" else -1
    with pytest.raises(UserError, match="sample 1: all its 0 events"):
        make_model()(**batch)


def test_events_outside_the_sensor_alone_give_the_bias():
    model, batch = make_model(pool_every_layer=1), make_batch()
    batch["x"][1] = 20
    logits = answer(model, batch)
    assert torch.equal(logits[1], model.heads.bias)
    assert not torch.equal(logits[0], model.heads.bias)


def test_padding_has_three_answers_as_published():
    """Convolutions leak from padding into the last two events, from the first two padded positions alone."""
    model, batch = make_model(), make_batch()
    none, one, two, many = (answer(model, pad(batch, count)) for count in (0, 1, 2, 40))
    assert (two - many).abs().max() <= 1e-12
    assert (one - many).abs().max() > 1e-6
    assert (none - many).abs().max() > 1e-6


def test_the_rest_of_a_batch_does_not_matter():
    model, batch = make_model(pool_every_layer=2), make_batch(3)
    together = answer(model, batch)
    for row in range(3):
        alone = answer(model, {name: value[row : row + 1] for name, value in batch.items()})
        assert (alone[0] - together[row]).abs().max() <= 1e-12


def test_holes_keep_their_place_in_time_and_leave_the_attention():
    model, batch = make_model(), make_batch(1)
    holed = batch | {"y": batch["y"].clone()}
    holed["y"][0, 10] = 12
    inputs = prepare(CONFIG, **holed, dtype=torch.float64)
    whole = prepare(CONFIG, **batch, dtype=torch.float64)
    assert inputs.mask.sum() == 31 and not inputs.mask[0, 10]
    assert not inputs.gaps[0, 10:12].any() and torch.equal(inputs.gaps[0, 12:], whole.gaps[0, 12:])
    assert not inputs.points[0, 10].any()
    with torch.inference_mode():
        tokens = model.tokens(inputs)
        features, _ = model.encode(tokens, inputs.mask)
        left = torch.arange(32) != 10
        without, _ = model.encode(tokens[:, left])
    assert (features[:, left] - without).abs().max() <= 1e-12


def test_coordinates_round_to_pixels_with_ties_to_even():
    batch = make_batch(1, 4)
    batch |= {"x": torch.tensor([[0.5, 1.5, 19.4, 19.6]]), "y": torch.tensor([[-0.5, 2.5, 11.5, 3.0]])}
    inputs = prepare(CONFIG, **batch, dtype=torch.float64)
    assert inputs.mask.tolist() == [[True, True, False, False]]
    assert inputs.points[0, :2, 0].tolist() == pytest.approx([-1, 4 / 19 - 1])
    assert inputs.points[0, :2, 1].tolist() == pytest.approx([-1, 4 / 11 - 1])


@pytest.mark.parametrize("length", [31, 34, 6])
def test_odd_lengths_cannot_be_pooled(length):
    with pytest.raises(UserError, match=f"{length} positions cannot be halved 2 times.*multiple of 4"):
        make_model(pool_every_layer=1)(**make_batch(2, length))
    assert answer(make_model(), make_batch(2, length)).isfinite().all()


def naive_attention(module, x, mask):
    """Both directions by the definition, sample by sample, on the events that count alone."""
    q, k, v, log_f = module.project(x)
    out = x.new_zeros(*x.shape[:2], 2 * x.shape[2])
    for row in range(len(x)):
        kept = mask[row].nonzero().flatten()
        both = []
        for places in (kept, kept.flip(0)):
            part = reference(*(value[row, places][None] for value in (q, k, v, log_f)))[0].flatten(1)
            both.append(part if places is kept else part.flip(0))
        out[row, kept] = torch.cat(both, -1)
    return module.o_proj(out)


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6])
def test_attention_in_both_directions_over_holes_and_padding(heads):
    torch.manual_seed(heads)
    config = replace(CONFIG, d_model=24, nheads=heads)
    module = EncoderLayer(config).double().attention.attention
    x, mask = torch.randn(3, 37, 24).double(), torch.rand(3, 37) < 0.7
    mask[1, 20:] = False
    mask[2] = True
    found = module(x, Order.of(mask))
    assert (found - naive_attention(module, x, mask)).abs().max() <= 1e-12
    assert not found[~mask].any()
    assert (module(x[2:]) - found[2:]).abs().max() <= 1e-12


@pytest.mark.parametrize("heads", [5, 7])
def test_heads_that_cannot_share_keys_are_refused(heads):
    with pytest.raises(UserError, match=f"nheads is {heads}"):
        replace(CONFIG, nheads=heads, d_model=4 * heads)


def test_configurations_name_what_is_wrong():
    with pytest.raises(UserError, match="d_model is 18"):
        replace(CONFIG, d_model=18)
    with pytest.raises(UserError, match="multiple of pool_every_layer 3"):
        replace(CONFIG, pool_every_layer=3)
    with pytest.raises(UserError, match="n_classes is not known|num_classes is missing"):
        Event2VecConfig.from_json({"H": 2})
    table = {"P": 2, "H": 12, "W": 20, "h": 12, "w": 20, "n_classes": 3, "activation": "relu", "p_token_mix": 0.5}
    table |= {"d_model": 16, "d_feedforward": 24, "nheads": 4, "n_layers": 2}
    assert Event2VecConfig.from_json(table) == CONFIG == Event2VecConfig.from_json(CONFIG.to_json())
    with pytest.raises(UserError, match="h differs from height"):
        Event2VecConfig.from_json(table | {"h": 6})


def test_layers_begin_as_copies_of_one_and_drop_more_the_deeper_they_are():
    model = Event2Vec(replace(CONFIG, n_layers=3, drop_path=0.4))
    first, *others = model.backbone_net.layers
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert [layer.drop_path.rate for layer in model.backbone_net.layers] == pytest.approx([0, 0.2, 0.4])
    one_each = Event2Vec(replace(CONFIG, drop_path=0.4, pool_every_layer=1))
    assert [encoder.layers[0].drop_path.rate for encoder in one_each.backbone_net] == [0, 0]


def test_dropped_paths_drop_whole_samples_in_training_alone():
    layer = Event2Vec(replace(CONFIG, drop_path=0.4)).backbone_net.layers[1]
    x = torch.ones(400, 2, 3)
    torch.manual_seed(0)
    dropped = layer.drop_path.train()(x)
    per_sample = dropped.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert sorted(set(per_sample[:, 0].tolist())) == pytest.approx([0, 1 / 0.6])
    assert 0.5 < (per_sample[:, 0] > 0).float().mean() < 0.7
    assert torch.equal(layer.drop_path.eval()(x), x)


def test_hidden_coordinates_are_hidden_and_their_times_are_not():
    model, batch = make_model(Event2VecRecovery, mask_ratio=0.3), make_batch(1)
    uniform = torch.ones(1, 32)
    uniform[0, [4, 9]] = 0.1
    guess = model(**batch, uniform=uniform).guess
    elsewhere = batch | {"x": batch["x"].clone(), "t": batch["t"].clone()}
    elsewhere["x"][0, 4] = (elsewhere["x"][0, 4] + 7) % 20
    assert torch.equal(model(**elsewhere, uniform=uniform).guess, guess)
    elsewhere["t"][0, 4:] += 150
    assert not torch.equal(model(**elsewhere, uniform=uniform).guess, guess)


def test_recovery_without_hidden_events_costs_nothing():
    model, batch = make_model(Event2VecRecovery, mask_ratio=0.3), make_batch(1)
    recovered = model(**batch, uniform=torch.ones(1, 32))
    assert isinstance(recovered, Recovered) and recovered.guess.shape == (0, 3)
    assert recovery_loss(recovered) == 0


def test_gaps_without_holes_need_no_mask():
    t = torch.rand(3, 10).double().cumsum(1)
    assert torch.equal(gaps(t), gaps(t, torch.ones(3, 10, dtype=torch.bool)))
    assert torch.equal(gaps(t[0]), gaps(t)[0])
