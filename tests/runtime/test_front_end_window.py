from __future__ import annotations

import numpy as np
import pytest

from runtime.errors import UserError
from runtime.events import Events
from runtime.front_ends import TokenDt, Window, front_end
from runtime.front_ends.limits import LATEST

SPEC = Window(width=7, height=5, window=6, hop=4)
SHAPES = [(6, 4), (6, 1), (2, 1), (4, 4), (3, 10), (8, 3), (5, 64)]


def make_events(count, seed=0, begin=1000):
    rng = np.random.default_rng(seed)
    t = begin + np.cumsum(rng.choice([0, 1, 40], count, p=[0.3, 0.4, 0.3]))
    return Events(t, rng.integers(0, 7, count), rng.integers(0, 5, count), rng.integers(0, 2, count))


def slow_windows(spec, events):
    """The definition, event by event."""
    token = [int(x) + 7 * int(y) + 35 * int(p) for x, y, p in zip(events.x, events.y, events.p, strict=True)]
    ends = [n for n in range(spec.window, len(events) + 1) if (n - spec.window) % spec.hop == 0]
    return [(token[n - spec.window : n], events.t[n - spec.window : n].tolist()) for n in ends]


def as_list(items):
    return [(token.tolist(), time.tolist()) for token, time in zip(items["token"], items["time"], strict=True)]


def singly(stream, events):
    found = []
    for t, x, y, p in zip(events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist(), strict=True):
        if (item := stream.push_event(t, x, y, p)) is not None:
            found.append((item[0].tolist(), item[1].tolist()))
    return found


@pytest.mark.parametrize("window, hop", SHAPES)
def test_windows_are_the_last_events_every_hop(window, hop):
    spec, events = Window(7, 5, window, hop), spaced(make_events(101))
    expected = slow_windows(spec, events)
    assert expected or hop > 90
    items = spec.open().push(events)
    assert as_list(items) == expected
    assert items["token"].dtype == items["time"].dtype == np.int64
    assert singly(spec.open(), events) == expected


def spaced(events):
    """The same with times that all differ, so that every window has a scale."""
    return Events(events.t + np.arange(len(events)), events.x, events.y, events.p)


@pytest.mark.parametrize("window, hop", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_any_split_of_a_stream_gives_the_same_windows(window, hop, seed):
    spec, events, rng = Window(7, 5, window, hop), spaced(make_events(150, seed)), np.random.default_rng(seed)
    stream, found, done = spec.open(), [], 0
    while done < len(events):
        size = int(rng.choice([0, 1, 2, 5, 30]))
        piece = events[done : done + size]
        found += singly(stream, piece) if rng.random() < 0.3 else as_list(stream.push(piece))
        if rng.random() < 0.2:
            stream, old = spec.open(), stream.snapshot()
            stream.restore(old)
        done += size
    assert found == slow_windows(spec, events)


def test_a_snapshot_is_not_touched_by_what_follows():
    stream, events = SPEC.open(), spaced(make_events(30))
    stream.push(events[:9])
    snapshot = stream.snapshot()
    later = as_list(stream.push(events[9:]))
    stream.restore(snapshot)
    assert singly(stream, events[9:]) == later


def test_handed_out_windows_stay_as_they_are():
    stream, events = SPEC.open(), spaced(make_events(60))
    early = stream.push(events[:20])
    kept = as_list(early)
    columns = (events.t[20:].tolist(), events.x[20:].tolist(), events.y[20:].tolist(), events.p[20:].tolist())
    one = [item for row in zip(*columns, strict=True) if (item := stream.push_event(*row)) is not None]
    copies = [(token.copy(), time.copy()) for token, time in one]
    stream.push(spaced(make_events(50, begin=10_000)))
    assert as_list(early) == kept
    for (token, time), (a, b) in zip(one, copies, strict=True):
        assert np.array_equal(token, a) and np.array_equal(time, b)


def test_reset_forgets_every_event():
    stream, events = SPEC.open(), spaced(make_events(40))
    first = as_list(stream.push(events))
    stream.reset()
    assert as_list(stream.push(events)) == first


def test_a_snapshot_of_another_window_is_refused():
    stream, other = SPEC.open(), Window(7, 5, 8, 4).open()
    other.push(spaced(make_events(20)))
    with pytest.raises(UserError, match="holds 8 events where a window of 6 after 20 events holds 6"):
        stream.restore(other.snapshot())


@pytest.mark.parametrize("bulk", [True, False])
def test_windows_of_one_time_are_refused_and_change_nothing(bulk):
    stream = SPEC.open()
    early = Events([3, 4, 9], [0, 0, 0], [0, 0, 0], [0, 0, 0])
    stream.push(early)
    stream.push(Events([9] * 6, *[[0] * 6] * 3))
    before = stream.snapshot()
    late = Events([9, 10], [0, 0], [0, 0], [0, 0])
    with pytest.raises(UserError, match="6 events in a row have the same time t=9"):
        stream.push(late) if bulk else stream.push_event(9, 0, 0, False)
    after = stream.snapshot()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert stream.push_event(10, 0, 0, True)[1].tolist() == [9, 9, 9, 9, 9, 10]


BAD = {
    "column": ((2000, 7, 0), "event 9 at x=7, y=0 lies outside the model's 7 x 5 sensor"),
    "row": ((2000, 0, 5), "event 9 at x=0, y=5 lies outside"),
    "order": ((5, 0, 0), "event 9 at t=5 is earlier than the event before it at t="),
    "late": ((LATEST + 1, 0, 0), "event 9 has the impossible time"),
}


@pytest.mark.parametrize("bulk", [True, False])
@pytest.mark.parametrize("kind", BAD)
def test_impossible_events_are_refused_and_change_nothing(kind, bulk):
    stream, events = SPEC.open(), spaced(make_events(9))
    stream.push(events)
    before = stream.snapshot()
    (t, x, y), message = BAD[kind]
    with pytest.raises(UserError, match=message):
        stream.push(Events([t], [x], [y], [0])) if bulk else stream.push_event(t, x, y, False)
    after = stream.snapshot()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_declaration_survives_a_manifest():
    assert front_end(SPEC.to_json()) == SPEC
    assert front_end(TokenDt("linear", 7, 5, "next", 70).to_json()).kind == "token_dt"
    token, time = SPEC.items
    assert (token.shape, token.domain, time.shape) == ((6,), (0, 70), (6,))
    for wrong, message in [
        ({"window": 1}, "whole window of at least 2, not 1"),
        ({"hop": 0}, "whole hop of at least 1"),
        ({"width": 2.5}, "whole width"),
        ({"size": 3}, "cannot be read"),
    ]:
        with pytest.raises(UserError, match=message):
            front_end(SPEC.to_json() | wrong)


def test_long_streams_move_their_ring_without_a_trace():
    spec, events = Window(7, 5, 4, 3), spaced(make_events(5000))
    assert singly(spec.open(), events) == slow_windows(spec, events)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("window, hop, every", [(6, 4, 3), (5, 1, 2), (2, 7, 5)])
def test_one_event_of_several_is_taken(window, hop, every, seed):
    spec, events = Window(7, 5, window, hop, every), spaced(make_events(211, seed))
    taken = events[every - 1 :: every]
    expected = slow_windows(Window(7, 5, window, hop), taken)
    assert len(expected) > 2
    assert as_list(spec.open().push(events)) == expected
    assert singly(spec.open(), events) == expected
    rng, stream, found, done = np.random.default_rng(seed), spec.open(), [], 0
    while done < len(events):
        piece = events[done : done + int(rng.integers(0, 20))]
        found += singly(stream, piece) if rng.random() < 0.3 else as_list(stream.push(piece))
        stream, old = spec.open(), stream.snapshot()
        stream.restore(old)
        done += len(piece)
    assert found == expected
    assert [spec.events_at(k) for k in range(3)] == [(window + k * hop) * every for k in range(3)]


def test_events_that_are_not_taken_still_let_time_pass():
    stream = Window(7, 5, 2, 1, every=3).open()
    stream.push(Events([5, 9], [0, 0], [0, 0], [0, 0]))
    with pytest.raises(UserError, match="t=8 is earlier than the event before it at t=9"):
        stream.push_event(8, 0, 0, False)


@pytest.mark.parametrize("bulk", [True, False])
def test_intensities_come_with_their_events(bulk):
    spec = Window(7, 5, 6, 4, every=2, intensity=True)
    events = spaced(make_events(60))
    weights = np.arange(60, dtype=np.float32)
    events = Events(events.t, events.x, events.y, events.p, weights)
    if bulk:
        stream = spec.open()
        found = [row.tolist() for part in (events[:31], events[31:]) for row in stream.push(part)["intensity"]]
    else:
        stream, rows = spec.open(), zip(*(getattr(events, n).tolist() for n in [*"txyp", "intensity"]), strict=True)
        found = [item[2].tolist() for row in rows if (item := stream.push_event(*row)) is not None]
    taken = weights[1::2].tolist()
    assert found == [taken[n - 6 : n] for n in range(6, 31, 4)]
    assert stream.snapshot()["intensity"].tolist() == taken[-6:]


def test_what_is_usual_is_not_declared():
    assert Window(7, 5, 6, 4).to_json() == {"width": 7, "height": 5, "window": 6, "hop": 4, "kind": "window"}
    spec = Window(7, 5, 6, 4, every=2, intensity=True, scaled=False)
    assert front_end(spec.to_json()) == spec
    with pytest.raises(UserError, match="whole every of at least 1, not 0"):
        Window(7, 5, 6, 4, every=0)
    with pytest.raises(UserError, match="intensity is 1, it must be true or false"):
        Window(7, 5, 6, 4, intensity=1)


def test_models_without_a_scale_take_windows_of_one_time():
    stream = Window(7, 5, 3, 1, scaled=False).open()
    assert len(stream.push(Events([4] * 4, *[[0] * 4] * 3))["time"]) == 2
    assert stream.push_event(4, 0, 0, True)[1].tolist() == [4, 4, 4]
