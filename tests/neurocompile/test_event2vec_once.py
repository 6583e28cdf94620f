"""Event2Vec with a fixed time scale: tokens and projections made once per event, on every backend, equal to offline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.event2vec import Event2Vec, Event2VecConfig
from models.event2vec.encoder import mean
from models.event2vec.events import prepare
from networks import scattered
from neurocompile.capture import capture
from neurocompile.lowering import lower
from neurocompile.parity import prove, shortest
from neurocompile.passes import run_passes
from neurocompile.reference import reference_session
from neurocompile.sequences import fit_to_sensor, shipped_sequence
from neurocompile.targets import TargetSpec, build, cpu
from runtime.backends.native import NativeModel, NativeSession
from runtime.backends.ort import OrtExecutor
from runtime.errors import UserError
from runtime.events import Events
from runtime.front_ends import Window
from runtime.session import ScheduledSession

CONFIG = Event2VecConfig(
    polarities=2,
    height=34,
    width=34,
    d_model=16,
    d_feedforward=24,
    nheads=4,
    n_layers=2,
    num_classes=3,
    time_scale=2.5,
)
FRONT_END = Window(34, 34, 48, 12)
CASES = {
    "flat": (FRONT_END, {}),
    "pooled": (Window(34, 34, 48, 12, every=2), {"pool_every_layer": 1}),
    "clusters": (Window(34, 34, 48, 16, intensity=True), {"intensity": True, "pool_every_layer": 2}),
}


def make_model(**changes) -> Event2Vec:
    return scattered(lambda: Event2Vec(replace(CONFIG, **changes)))


def make_events(count: int, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    gaps = rng.choice([0, 1, 30, 7000], count)
    return Events(10**12 + np.cumsum(gaps), *(rng.integers(0, high, count) for high in (34, 34, 2)))


def columns(events: Events, model: Event2Vec) -> list[torch.Tensor]:
    found = [torch.from_numpy(np.asarray(getattr(events, name)).astype(np.int64))[None] for name in "pyxt"]
    return [*found, torch.ones_like(found[0], dtype=torch.bool)]


@pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "clusters" else pytest.mark.slow) for name in CASES]
)
def test_artefacts_are_proved_on_the_whole_stream(name, tmp_path):
    front_end, changes = CASES[name]
    program = make_model(**changes).stream_program(front_end, ("a", "b", "c"))
    graphs = run_passes(capture(program))[0]
    files = build(graphs, TargetSpec("cpu", "fp32")).files
    (tmp_path / "libmodel.so").write_bytes(files["libmodel.so"])
    native = NativeModel(program.spec, tmp_path / "libmodel.so", files["model.weights"])
    recording = fit_to_sensor(shipped_sequence(shortest(program.spec)), front_end)
    blocks = len(recording.events) // front_end.every // front_end.hop
    assert blocks - program.spec.first_readout >= 19
    for session in (
        lambda tick_us: ScheduledSession(program.spec, OrtExecutor(program.spec, graphs.serialised())),
        lambda tick_us: NativeSession(program.spec, native),
    ):
        parity = prove(program, session, recording, "fp32")
        assert parity.report["status"] == "proved", parity.report["failure"]
        assert parity.report["offline"]["relative"] <= 1e-12


def test_a_first_window_is_the_network_on_it():
    model, events = make_model(pool_every_layer=1), make_events(48)
    session = reference_session(model.stream_program(FRONT_END))
    assert session.push(events) == 4 and session.ready
    with torch.inference_mode():
        want = model.double()(*columns(events, model))[0].numpy()
    assert np.abs(session.readout() - want).max() <= 1e-12


@pytest.mark.parametrize(
    ("hop", "keep"),
    [(12, True), (4, True), (24, True), (48, True), (12, False)],
    ids=["four hops", "twelve hops", "two hops", "one hop", "too many hops to keep answers"],
)
def test_every_later_window_is_the_network_with_the_gaps_before_it(hop, keep, monkeypatch):
    if not keep:
        monkeypatch.setattr("models.event2vec.once.MOST_BYTES", 0)
    model, events = make_model(), make_events(150, hop)
    program = model.stream_program(replace(FRONT_END, hop=hop))
    assert ("kept" in {state.name for state in program.spec.states}) == keep
    assert program.spec.notes["carried"].endswith("both directions" if keep else "the backward direction")
    session = reference_session(program)
    double = make_model().double()
    for n, row in enumerate(zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True), 1):
        if not session.push_event(*row) or n < 48:
            continue
        with torch.inference_mode():
            p, y, x, t, mask = columns(events[:n], double)
            inputs = prepare(double.config, p, y, x, t, mask, torch.float64)
            features, _ = double.encode(double.tokens(inputs)[:, -48:])
            want = double.heads(mean(features))[0].numpy()
        assert np.abs(session.readout() - want).max() <= 1e-12


def test_before_the_first_window_the_answer_is_the_bias_and_marked_so():
    model = make_model()
    session = reference_session(model.stream_program(FRONT_END))
    session.push(make_events(47))
    assert not session.ready
    assert np.array_equal(session.readout(), model.heads.bias.detach().double().numpy())


def test_what_a_hop_costs_before_the_second_layer_goes_with_its_own_events():
    """Tokens with the hop, the first layer's attention with the hop times the window, instead of with its square."""
    work = {}
    for size in (48, 96):
        program = make_model(n_layers=1).stream_program(replace(FRONT_END, window=size))
        work[size] = lower(run_passes(capture(program))[0]).multiply_adds
    assert work[48]["tokens"] == work[96]["tokens"] > 0
    # 12 queries on 48 and on 96 keys, 48 and 96 queries on 12 keys; those among themselves are half as many.
    pairs = {size: 2 * (12 * size - 12 * 11 // 2) for size in work}
    assert {size: count["attention"] for size, count in work.items()} == {s: 2 * 16 * n for s, n in pairs.items()}
    assert work[96]["window"] == 2 * work[48]["window"]


def test_times_may_all_be_equal():
    events = make_events(60)
    still = replace(events, t=np.full(60, 7))
    session = reference_session(make_model().stream_program(FRONT_END))
    session.push(still)
    assert np.isfinite(session.readout()).all()
    with torch.inference_mode():
        assert torch.isfinite(make_model()(*columns(still, make_model()))).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="48 events is no whole number of hops of 13 events"):
        make_model().stream_program(replace(FRONT_END, hop=13))
    with pytest.raises(UserError, match="tick of this recording lasts 0.5 us"):
        reference_session(make_model().stream_program(FRONT_END), tick_us=0.5)
    with pytest.raises(UserError, match="time_scale is 0, it must be a number of milliseconds above 0"):
        replace(CONFIG, time_scale=0)
    with pytest.raises(UserError, match="time_scale is 2.5, it must be left out where mask_ratio is above 0"):
        replace(CONFIG, mask_ratio=0.3)
