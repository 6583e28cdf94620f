from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import UserError
from runtime.events import Events
from runtime.session import ScheduledSession
from toy_sessions import STATES, assert_refuses_snapshots_of_other_programs, assert_same, everything, push_singly

pytest.importorskip("onnxruntime")
COUNT = 3000
# Sessions are reset by whoever takes one, so examples may share them.
SHARED = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def open_toy(toy):
    """A maker of sessions over the toy's graphs."""
    from runtime.backends.ort import OrtExecutor

    return lambda use_chunk=True: ScheduledSession(toy.spec, OrtExecutor(toy.spec, toy.graphs()), use_chunk=use_chunk)


@pytest.fixture(scope="module")
def sessions(open_toy) -> tuple[ScheduledSession, ScheduledSession]:
    """One that uses the chunk form and one that steps."""
    return open_toy(True), open_toy(False)


@pytest.fixture(scope="module")
def events(make_events) -> Events:
    return make_events(COUNT)


@pytest.fixture(scope="module")
def expected(toy, events):
    return toy.simulate(events)


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], row: int) -> None:
    for name, value in found.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(value / scale, expected[name][row] / scale, atol=2e-6, err_msg=f"{name} at {row}")


def test_every_event_equals_the_simulation(sessions, events, expected):
    _, session = sessions
    session.reset()
    for k in range(COUNT):
        push_singly(session, events[k : k + 1])
        if k < 100 or k % 37 == 0 or k == COUNT - 1:
            assert_close(everything(session), expected, k)


def test_readouts_do_not_disturb_the_stream(sessions, events):
    asked, unasked = sessions[1], sessions[0]
    asked.reset()
    unasked.reset()
    for k in range(50):
        push_singly(asked, events[k : k + 1])
        first = asked.readout()
        np.testing.assert_array_equal(asked.readout(), first)
        push_singly(unasked, events[k : k + 1])
    assert_same(asked, unasked)


def test_items_and_readiness(toy, open_toy, events):
    session = open_toy()
    late = int(toy.dt == "next")
    assert not session.ready and session.items == 0
    assert session.push(events[:1]) == 1 - late
    assert session.push(Events.empty()) == 0
    assert session.push(events[1:4]) == 3
    assert session.items == 4 - late and session.ready == (not late)
    session.reset()
    assert session.items == 0 and not session.ready


@SHARED
@given(cuts=st.lists(st.integers(0, 600), max_size=12))
def test_any_split_equals_one_push_and_chunk_equals_step(sessions, events, expected, cuts):
    chunked, stepped = sessions
    edges = [0, *sorted(cuts), 600]
    for session in sessions:
        session.reset()
        made = sum(session.push(events[a:b]) for a, b in pairwise(edges))
        assert made == session.items
    assert_close(everything(chunked), expected, 599)
    assert chunked.items == stepped.items
    one = everything(stepped)
    stepped.reset()
    stepped.push(events[:600])
    for name, value in everything(stepped).items():
        np.testing.assert_array_equal(value, one[name], err_msg=name)


@SHARED
@given(at=st.integers(0, 300), split=st.integers(0, 200))
def test_a_snapshot_continues_in_another_session(sessions, open_toy, events, at, split):
    first, second = sessions[1], sessions[0]
    first.reset()
    push_singly(first, events[:at])
    snapshot = first.snapshot()
    kept = copy.deepcopy(snapshot)
    second.reset()
    second.push(events[1000 : 1000 + split])
    second.restore(snapshot)
    assert_same(first, second)
    push_singly(first, events[at : at + 40])
    push_singly(second, events[at : at + 40])
    assert_same(first, second)
    for name, value in kept["states"].items():
        np.testing.assert_array_equal(snapshot["states"][name], value)


def test_a_snapshot_of_another_program_is_refused(open_toy, events):
    session = open_toy()
    session.push(events[:21])
    assert_refuses_snapshots_of_other_programs(session)


@pytest.mark.parametrize("bad", ["earlier", "outside x", "outside y", "hidden in a batch"])
def test_a_failed_push_leaves_the_session_as_it_was(open_toy, events, bad):
    session, untouched = open_toy(), open_toy()
    session.push(events[:101])
    untouched.push(events[:101])
    t = int(events.t[100])
    row = {"earlier": (t - 1, 0, 0, True), "outside x": (t, 8, 0, True), "outside y": (t, 0, 8, False)}.get(bad)
    if row:
        with pytest.raises(UserError, match="event 101"):
            session.push_event(*row)
        with pytest.raises(UserError, match="event 101"):
            session.push(Events(*(np.array([value]) for value in row)))
    else:
        x = events.x[101:140].copy()
        x[20] = 9
        with pytest.raises(UserError, match="event 121"):
            session.push(Events(events.t[101:140], x, events.y[101:140], events.p[101:140]))
    assert_same(session, untouched)
    session.push(events[101:130])
    untouched.push(events[101:130])
    assert_same(session, untouched)


def test_interleaved_sessions_do_not_disturb_each_other(open_toy, make_events):
    streams = [make_events(300, seed) for seed in (1, 2, 3)]
    together, alone = [open_toy(False) for _ in streams], open_toy(False)
    rng = np.random.default_rng(0)
    done = [0, 0, 0]
    while min(done) < 300:
        k = int(rng.choice([k for k in range(3) if done[k] < 300]))
        push_singly(together[k], streams[k][done[k] : done[k] + 3])
        done[k] = min(done[k] + 3, 300)
        if rng.random() < 0.1:
            together[k].readout()
    for session, stream in zip(together, streams, strict=True):
        alone.reset()
        push_singly(alone, stream)
        assert_same(session, alone)


def test_reset_forgets_everything(open_toy, events):
    used, fresh = open_toy(), open_toy()
    used.push(events[:777])
    used.reset()
    assert_same(used, fresh)
    # Times may begin anew, also before the ones seen.
    used.push(events[:33])
    fresh.push(events[:33])
    assert_same(used, fresh)


def test_states_and_snapshots_are_copies(open_toy, events):
    session = open_toy()
    session.push(events[:50])
    before = everything(session)
    for name in STATES:
        session.state(name)[...] = np.nan
    session.readout()[...] = np.nan
    for value in session.snapshot()["states"].values():
        value[...] = np.nan
    for name, value in everything(session).items():
        np.testing.assert_array_equal(value, before[name])


def test_ticks_of_another_length(toy, events, expected):
    from runtime.backends.ort import OrtExecutor

    session = ScheduledSession(toy.spec, OrtExecutor(toy.spec, toy.graphs()), tick_us=0.5)
    session.push(Events(events.t * 2, events.x, events.y, events.p)[:200])
    assert_close(everything(session), expected, 199)


def test_a_graph_that_the_runtime_refuses(toy):
    from runtime.backends.ort import OrtExecutor

    with pytest.raises(UserError, match="stage 'deep'"):
        OrtExecutor(toy.spec, {**toy.graphs(), "deep": b"no graph"})
