"""The compiled program of event-ssm in stock ONNX Runtime: golden prefixes, every variant, any split, any snapshot."""

from __future__ import annotations

from itertools import accumulate, repeat

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.event_ssm import EventSSM
from models.event_ssm.presets import PRESETS
from neurocompile.capture import capture
from neurocompile.parity import prove
from neurocompile.passes import run_passes
from neurocompile.reference import reference_session
from neurocompile.sequences import fit_to_sensor, shipped_sequence
from runtime.events import Events
from runtime.front_ends import TokenDt
from runtime.trace import compare, record, summary

TINY = [f"tiny_{rule}_{pool}" for rule in ("zoh", "dirac", "async") for pool in ("last", "avgpool", "timepool")]
OURS = ["two_stages", "batch_norm", "zoh_last", "post_norm", "stride_one"]
ALL = ["dvs_tiny", "shd_tiny", "ssc_small", *TINY, "tiny_batch_one", "tiny_three_stages", *OURS]
BOUND = 1e-4
SPLIT = ["two_stages", "zoh_last"]
SHARED = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("use_chunk", [False, True])
@pytest.mark.parametrize("name", ["dvs_tiny", "shd_tiny", "ssc_small"])
def test_published_prefixes(event_ssm_case, compiled, open_onnx, name, use_chunk):
    case = event_ssm_case(name)
    t, done = case.arrays["events/0/t"], 0
    zeros = np.zeros(len(t))
    # The program's front end takes tokens as they are; the last event has none.
    events = Events(t, np.append(case.arrays["tokens"][0, : len(t) - 1], 0), zeros, zeros)
    session = open_onnx(compiled(name), use_chunk)
    for n, logits in zip(case.arrays["prefix/n"].tolist(), case.arrays["prefix/logits_f64"], strict=True):
        session.push(events[done : n + 1])
        done = n + 1
        if session.ready:
            assert np.abs(session.readout() - logits).max() < BOUND * np.abs(logits).max(), n


@pytest.mark.parametrize("name", ALL)
def test_every_variant(program, compiled, open_onnx, stream, name):
    """Readout and every state, event by event and by chunks, against float64 and the network's own forward."""
    program, graphs = program(name), compiled(name)
    period, items = program.spec.period, program.spec.chunk.items
    events = stream(program, 2 * items + 5 * period + 2, seed=11)
    marks = np.unique([1, 2, 17, period + 1, 2 * period + 1, items + 1, items + period + 2, len(events)])
    trace = record(reference_session(program), events, marks, tick_us=1.0, source="made up")
    for session, pieces in ((open_onnx(graphs), None), (open_onnx(graphs, use_chunk=True), repeat(len(events)))):
        worst = summary(compare(session, trace, pieces=pieces))
        assert worst["worst_relative"] < BOUND, worst
    assert program.offline(items_of(program, events)).argmax() == trace.readouts[-1].argmax()


def items_of(program, events) -> dict[str, np.ndarray]:
    from runtime.front_ends import front_end

    return front_end(program.spec.front_end).open().push(events)


class Walk:
    """Readout and states of a stepping session after every event of a stream."""

    def __init__(self, session, events) -> None:
        self.events, self.names = events, [state.name for state in session.spec.states]
        rows = []
        for k in range(len(events)):
            session.push(events[k : k + 1])
            rows.append([session.readout(), *(session.state(name) for name in self.names)])
        self.columns = [np.stack(column) for column in zip(*rows, strict=True)]

    def check(self, session, done: int) -> None:
        values = [session.readout(), *(session.state(name) for name in self.names)]
        for name, value, column in zip(("readout", *self.names), values, self.columns, strict=True):
            error, scale = np.abs(value - column[done - 1]).max(), np.abs(column).max()
            assert error <= BOUND * scale, f"{name} after {done} events: {error / scale:.1e}"


@pytest.fixture(scope="module", params=SPLIT)
def walk(request, compiled, open_onnx, stream):
    """The step-by-step course of a stream, and two sessions that use chunks."""
    graphs = compiled(request.param)
    events = stream(graphs, 4 * graphs.spec.chunk.items + 3)
    return Walk(open_onnx(graphs), events), [open_onnx(graphs, use_chunk=True) for _ in range(2)]


@SHARED
@given(sizes=st.lists(st.integers(0, 700), min_size=1, max_size=12))
def test_any_split_of_a_stream(walk, sizes):
    walk, (session, _) = walk
    session.reset()
    done = 0
    for end in (*accumulate(sizes), len(walk.events)):
        session.push(walk.events[done:end])
        done = max(done, min(end, len(walk.events)))
        if done:
            walk.check(session, done)
    assert session.items == len(walk.events) - 1


@SHARED
@given(first=st.integers(0, 500), middle=st.integers(0, 500), noise=st.integers(0, 300))
def test_a_snapshot_anywhere_continues_elsewhere(walk, first, middle, noise):
    walk, (here, there) = walk
    here.reset()
    here.push(walk.events[:first])
    snapshot = here.snapshot()
    there.reset()
    there.push(walk.events[500 : 500 + noise])
    there.restore(snapshot)
    here.push(walk.events[700:900])  # What happens here no longer matters there.
    there.push(walk.events[first : first + middle])
    if first + middle:
        walk.check(there, first + middle)
    # The same snapshot serves again.
    here.restore(snapshot)
    here.push(walk.events[first : first + middle])
    np.testing.assert_array_equal(here.readout(), there.readout())


def test_chunks_do_run(compiled, open_onnx, stream):
    """The tests above would pass without them."""
    graphs = compiled(SPLIT[0])
    session, ran = open_onnx(graphs, use_chunk=True), []

    class Counting:
        def __init__(self, inner) -> None:
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def run_chunk(self, items):
            ran.append(len(items["dt"]))
            self.inner.run_chunk(items)

    session.watch(Counting)
    session.push(stream(graphs, 4 * graphs.spec.chunk.items + 3))
    assert ran == [graphs.spec.chunk.items] * 4


@pytest.mark.slow
def test_a_hundred_thousand_events(open_onnx, record_property):
    """`dvs/small` with random weights over joined recordings: within the bound throughout, and no drift over time."""
    preset = PRESETS["dvs/small"]
    torch.manual_seed(0)
    front_end = TokenDt("product", 128, 128, "next", preset.config.num_embeddings)
    program = EventSSM(preset.config).eval().stream_program(front_end, preset.labels)
    graphs = run_passes(capture(program))[0]
    recording = fit_to_sensor(shipped_sequence(100_000), front_end)
    report = prove(program, lambda tick_us: open_onnx(graphs, use_chunk=True), recording, "fp32").report
    assert report["failure"] == ""
    assert report["events"] == 100_000
    assert report["offline"]["relative"] < 1e-9
    for form in ("step", "chunk"):
        over_time = {int(mark): error for mark, error in report[form]["relative_by_event"].items()}
        record_property(f"drift_{form}", over_time)
        print(form, {mark: f"{error:.1e}" for mark, error in over_time.items()})
        early = max(error for mark, error in over_time.items() if mark <= 13_000)
        assert over_time[100_000] < max(10 * early, 1e-5)
