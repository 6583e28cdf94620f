"""Golden traces: what of the reference's run is kept, and what of it ships."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from neurocompile import parity
from neurocompile.parity import marks_for
from parity_case import EVENTS, PERIOD, Case
from runtime.errors import UserError
from runtime.events import Events
from runtime.front_ends import front_end
from runtime.session import ScheduledSession
from runtime.trace import Trace, compare, record, worst


@pytest.fixture(scope="module")
def case(program, compiled, stream) -> Case:
    return Case.made_up(program, compiled, stream)


@pytest.fixture(scope="module")
def proof(case) -> parity.Parity:
    return case.prove()


def test_the_trace_is_the_float64_references(proof, case, tmp_path):
    trace = proof.trace
    assert trace.marks.tolist() == marks_for(EVENTS, PERIOD).tolist()
    assert trace.readouts.dtype == np.float64
    items = Events(*(getattr(case.recording.events, name) for name in "txyp"))
    offline = case.program.offline(front_end(case.program.spec.front_end).open().push(items))
    np.testing.assert_allclose(trace.readouts[-1], offline, rtol=1e-9)
    again = Trace.from_bytes(trace.to_bytes())
    assert (again.tick_us, again.source) == (trace.tick_us, trace.source)
    for name in ("marks", "readouts"):
        np.testing.assert_array_equal(getattr(again, name), getattr(trace, name))
    for name in "txyp":
        np.testing.assert_array_equal(getattr(again.events, name), getattr(trace.events, name))
    assert again.states.keys() == trace.states.keys() == {state.name for state in case.program.spec.states}
    for name, values in trace.states.items():
        np.testing.assert_array_equal(again.states[name], values)


@pytest.mark.parametrize("data", [b"", b"no archive", None])
def test_a_damaged_trace_is_refused(proof, data):
    data = proof.trace.to_bytes()[:-100] if data is None else data
    with pytest.raises(UserError, match="golden trace of this bundle cannot be read"):
        Trace.from_bytes(data)


def test_only_what_fits_is_shipped(case, monkeypatch):
    monkeypatch.setattr(parity, "SHIPPED_EVENTS", 600)
    trace = case.prove().trace
    assert trace.marks[-1] == len(trace.events) == 525
    assert len(trace.marks) == len(trace.readouts) == len(trace.states["head.sum"])


def test_large_states_are_recorded_and_shipped_at_fewer_marks(case, monkeypatch):
    each = 8 * sum(int(np.prod(state.shape)) for state in case.program.spec.states)
    monkeypatch.setattr(parity, "record", partial(record, room=6 * each + 1))
    monkeypatch.setattr(parity, "SHIPPED_BYTES", 2 * each + 1)
    proof = case.prove()
    trace = proof.trace
    assert proof.report["status"] == "proved" and len(trace.marks) > 6
    assert trace.states_at.tolist() == [trace.marks[0], trace.marks[-1]]
    assert {len(values) for values in trace.states.values()} == {2}
    again = Trace.from_bytes(trace.to_bytes())
    np.testing.assert_array_equal(again.states_at, trace.states_at)
    found = compare(case.open(case.graphs, ScheduledSession, 1.0), again)
    assert {d.mark for d in found if d.what == "readout"} == set(trace.marks.tolist())
    assert {d.mark for d in found if d.what != "readout"} == set(trace.states_at.tolist())
    # A state that is wrong where it is known still shows.
    spoiled = {name: values + (name == "head.sum") for name, values in trace.states.items()}
    assert (
        worst(compare(case.open(case.graphs, ScheduledSession, 1.0), replace(trace, states=spoiled))).what == "head.sum"
    )


def test_at_least_one_mark_has_states(case, monkeypatch):
    monkeypatch.setattr(parity, "record", partial(record, room=0))
    monkeypatch.setattr(parity, "SHIPPED_BYTES", 0)
    trace = case.prove().trace
    assert trace.states_at.tolist() == [trace.marks[-1]] == [len(trace.events)]
