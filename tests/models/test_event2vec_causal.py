"""The causal Event2Vec: its step against its own offline forward, and that it looks back only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from models.event2vec.causal import CausalConfig, CausalEvent2Vec
from neurocompile.reference import reference_session
from neurocompile.sequences import shipped_sequence
from runtime.errors import UserError
from runtime.front_ends import TokenDt
from runtime.trace import push_singly

BASE = CausalConfig(
    polarities=2, height=34, width=34, d_model=16, d_feedforward=24, nheads=4, n_layers=2, num_classes=5, memory=13
)
FRONT_END = TokenDt("linear", 34, 34, "previous", 2312)
VARIANTS = [
    replace(BASE, attention=attention, **more)
    for attention in ("gated_linear", "forgetting_causal")
    for more in (
        {},
        {"pool_every_layer": 1, "n_layers": 3, "place": "table"},
        {"pool_every_layer": 2, "n_layers": 4, "nheads": 3, "d_model": 24},
    )
]


def make(config: CausalConfig) -> CausalEvent2Vec:
    torch.manual_seed(3)
    model = CausalEvent2Vec(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.normal_(1.0, 0.3)
        for layer in (layer for encoder in model.backbone for layer in encoder.layers):
            layer.attention.f_proj.bias.normal_(2.0, 1.5)
    return model


def items_of(count: int) -> dict[str, np.ndarray]:
    return FRONT_END.open().push(shipped_sequence(count).events)


@pytest.mark.parametrize("config", VARIANTS, ids=lambda c: f"{c.attention}-{c.pool_every_layer}-{c.n_layers}")
def test_every_step_equals_the_offline_forward(config):
    """Carried state, at odd lengths and over a long stream, in float64."""
    program = make(config).stream_program(FRONT_END)
    session, events = reference_session(program), shipped_sequence(337).events
    done = 0
    for end in (1, 2, 3, 17, 100, 111, 337):
        push_singly(session, events[done:end])
        done = end
        want = program.offline({name: value[:end] for name, value in items_of(337).items()})
        assert np.abs(session.readout() - want).max() <= 1e-9 * max(np.abs(want).max(), 1)


@pytest.mark.parametrize("pool", [0, 1])
def test_chunks_under_arbitrary_splits_equal_steps(pool):
    program = make(replace(BASE, pool_every_layer=pool)).stream_program(FRONT_END)
    events = shipped_sequence(1500).events
    chunked = reference_session(program, use_chunk=True)
    for begin, end in ((0, 3), (3, 700), (700, 701), (701, 1500)):
        chunked.push(events[begin:end])
    want = program.offline(items_of(1500))
    assert np.abs(chunked.readout() - want).max() <= 1e-9 * np.abs(want).max()


def test_reset_begins_anew_and_restore_continues():
    # A float32 session: snapshots hold states as bundles declare them.
    session = reference_session(make(VARIANTS[3]).stream_program(FRONT_END), torch.float32)
    events = shipped_sequence(300).events
    session.push(events[:150])
    kept = session.snapshot()
    session.push(events[150:])
    first = session.readout()
    session.restore(kept)
    session.push(events[150:])
    assert np.array_equal(session.readout(), first)
    session.reset()
    session.push(events)
    assert np.array_equal(session.readout(), first)


@pytest.mark.parametrize("config", VARIANTS[:2] + VARIANTS[3:5], ids=lambda c: f"{c.attention}-{c.pool_every_layer}")
def test_neither_padding_nor_what_comes_later_changes_an_answer(config):
    model = make(config).double()
    items = items_of(64)
    token, dt = torch.as_tensor(items["token"])[None], torch.as_tensor(items["dt"]).double()[None]
    want = model(token[:, :40], dt[:, :40], torch.tensor([40]))
    other = model(
        token.flip(1).roll(24, 1).clone().index_copy(1, torch.arange(40), token[:, :40]), dt, torch.tensor([40])
    )
    padded = model(
        torch.nn.functional.pad(token[:, :40], (0, 7), value=-1),
        torch.nn.functional.pad(dt[:, :40], (0, 7)),
        torch.tensor([40]),
    )
    assert (want - other).abs().max() <= 1e-12
    assert (want - padded).abs().max() <= 1e-12


def test_the_ring_forgets_what_is_older_than_its_memory():
    """One layer without pooling: an event beyond the memory and the convolutions changes no token after it."""
    model = make(replace(BASE, attention="forgetting_causal", n_layers=1)).double()
    items = items_of(80)
    token, dt = torch.as_tensor(items["token"])[None], torch.as_tensor(items["dt"]).double()[None]
    changed = token.clone()
    changed[0, 20] = (token[0, 20] + 700) % 2312
    features = []
    for tokens in (token, changed):
        x = model.place(tokens) + model.tpe(model.gap(dt))[0]
        features.append(model.backbone[0](x)[0])
    moved = (features[0] - features[1]).abs().amax(1) > 1e-12
    assert moved[20 : 20 + BASE.memory].all()
    assert not moved[:20].any()
    assert not moved[20 + BASE.memory :].any()


def test_equal_times_and_one_event_have_answers():
    """Gaps of 0 need no scale: what is NaN in the published network is defined here."""
    model = make(VARIANTS[1])
    token = torch.tensor([[1, 5, 9, 1, 5, 9, 2, 2]])
    assert model(token, torch.zeros(1, 8), torch.tensor([8])).isfinite().all()
    one = make(VARIANTS[0])(token[:, :1], torch.zeros(1, 1), torch.tensor([1]))
    assert one.isfinite().all()
    torch.testing.assert_close(model(token[:, :7], torch.zeros(1, 7), torch.tensor([7])), model.heads.bias[None])


@pytest.mark.parametrize("config", VARIANTS[:1] + VARIANTS[3:4], ids=lambda c: c.attention)
def test_gradients_reach_every_weight(config):
    model = make(config).train()
    items = items_of(50)
    token, dt = torch.as_tensor(items["token"])[None], torch.as_tensor(items["dt"])[None]
    model(token, dt, torch.tensor([50])).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_checkpoints_describe_themselves(tmp_path):
    labels = tuple("abcde")
    save_checkpoint(
        tmp_path / "causal.safetensors", Checkpoint("event2vec_causal", make(BASE), BASE, FRONT_END, labels)
    )
    opened = open_checkpoint(tmp_path / "causal.safetensors")
    assert opened.config == BASE
    assert torch.equal(opened.model.heads.weight, make(BASE).heads.weight)
    torch.save(opened.model.state_dict(), tmp_path / "bare.pt")
    with pytest.raises(UserError, match="without their description"):
        open_checkpoint(tmp_path / "bare.pt")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"attention": "softmax"}, "attention is 'softmax'"),
        ({"time_scale": 0}, "time_scale is 0"),
        ({"memory": 0}, "memory is 0"),
        ({"place": "cell"}, "place is 'cell'"),
        ({"nheads": 5, "d_model": 20}, "1, 3 or even"),
        ({"pool_every_layer": 3}, "n_layers is 2"),
    ],
)
def test_impossible_networks_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        replace(BASE, **change)


def test_other_tokens_are_refused():
    with pytest.raises(UserError, match="rule: linear"):
        make(BASE).stream_program(TokenDt("product", 34, 34, "previous", 2312))
