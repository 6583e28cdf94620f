"""Front end `token_dt`: however a stream is cut, the items are the same, and they are the published ones."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import UserError
from runtime.events import Events
from runtime.front_ends import front_end
from runtime.front_ends.token_dt import GAPS, LATEST, RULES, TokenDt

WIDTH, HEIGHT = 7, 5
SPECS = [
    TokenDt(rule, WIDTH, HEIGHT, dt, 2 * WIDTH * HEIGHT, fixed)
    for rule in RULES
    for dt in GAPS
    for fixed in (None, 250.0)
]


@st.composite
def streams(draw, least: int = 0, most: int = 30) -> Events:
    count = draw(st.integers(least, most))
    gaps = draw(st.lists(st.sampled_from([0, 0, 1, 3, 1000, 10**6, 10**13]), min_size=count, max_size=count))
    start = draw(st.integers(-(10**15), 10**15))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    t = start + np.cumsum(np.array(gaps, np.int64))
    return Events(t, rng.integers(0, WIDTH, count), rng.integers(0, HEIGHT, count), rng.random(count) < 0.5)


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in ("token", "dt", "elapsed")}


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    for name in ("token", "dt", "elapsed"):
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def by_hand(spec: TokenDt, events: Events, tick_us: float) -> list[tuple[int, float]]:
    """The definition, one event at a time."""
    rows = list(zip(events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist(), strict=True))
    tokens = []
    for _, x, y, p in rows:
        plane = spec.width * spec.height * p
        tokens.append({"channel": x, "product": x * y + plane, "linear": x + spec.width * y + plane}[spec.rule])
    items = []
    for k in range(len(rows)):
        if spec.dt == "next" and k + 1 == len(rows):
            break
        gap = rows[k + 1][0] - rows[k][0] if spec.dt == "next" else rows[k][0] - rows[max(k - 1, 0)][0]
        gap_us = gap * tick_us if spec.fixed_dt_us is None else spec.fixed_dt_us
        items.append((tokens[k], gap_us / 1000))
    return items


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.rule}-{s.dt}-{s.fixed_dt_us}")
@settings(deadline=None, max_examples=50)
@given(events=streams(), cuts=st.lists(st.integers(0, 30), max_size=5), tick_us=st.sampled_from([1.0, 0.2, 1000.0]))
def test_any_split_is_one_push(spec, events, cuts, tick_us):
    whole = spec.open(tick_us)
    items = whole.push(events)
    bounds = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    split = spec.open(tick_us)
    parts = [split.push(events[begin:end]) for begin, end in pairwise(bounds)]
    assert_same(items, joined(parts))
    assert split.snapshot() == whole.snapshot()

    expected = by_hand(spec, events, tick_us)
    assert items["token"].tolist() == [token for token, _ in expected]
    np.testing.assert_allclose(items["dt"], [dt for _, dt in expected], rtol=1e-6)
    sums = np.cumsum(items["dt"].astype(np.float64)) if len(expected) else np.empty(0)
    np.testing.assert_array_equal(items["elapsed"], sums)
    assert items["token"].dtype == np.int64 and items["dt"].dtype == np.float32


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.rule}-{s.dt}-{s.fixed_dt_us}")
@pytest.mark.parametrize("scalars", ["python", "numpy"])
def test_push_event_is_push(spec, scalars):
    rng = np.random.default_rng(3)
    count = 200
    # A sensor on which x y does not fit into the 16 bits of the columns.
    spec = replace(spec, width=700, height=600, vocabulary=2 * 700 * 600)
    t = np.cumsum(rng.integers(0, 2000, count))
    events = Events(t, rng.integers(0, 700, count), rng.integers(0, 600, count), rng.random(count) < 0.5)
    one, many = spec.open(0.2), spec.open(0.2)
    items = many.push(events)
    columns = [getattr(events, name) for name in "txyp"]
    rows = zip(*(c.tolist() if scalars == "python" else c for c in columns), strict=True)
    got = [item for row in rows if (item := one.push_event(*row)) is not None]
    for k, name in enumerate(("token", "dt", "elapsed")):
        np.testing.assert_array_equal([item[k] for item in got], items[name], err_msg=name)
    assert one.snapshot() == many.snapshot()
    assert all(type(token) is int for token, _, _ in got)


@settings(deadline=None, max_examples=50)
@given(before=streams(most=10), after=streams(least=1, most=10))
def test_snapshot_continues_elsewhere(before, after):
    for spec in SPECS:
        stream = spec.open()
        stream.push(before)
        shift = int(before.t[-1]) - int(after.t[0]) if len(before) else 0
        rest = Events(after.t + shift, after.x, after.y, after.p)
        other = spec.open()
        other.restore(json.loads(json.dumps(stream.snapshot())))
        assert_same(stream.push(rest), other.push(rest))
        assert stream.snapshot() == other.snapshot()
        stream.reset()
        assert stream.snapshot() == spec.open().snapshot()
        assert_same(stream.push(after), spec.open().push(after))


BAD = {
    "outside": (10, WIDTH, 0, "event 4 at x=7, y=0 lies outside the model's 7 x 5 sensor.*--roi.*--resize"),
    "below": (10, 0, HEIGHT, "event 4 at x=0, y=5 lies outside"),
    "back": (1, 0, 0, "event 4 at t=1 is earlier than the event before it at t=9"),
    "late": (LATEST + 1, 0, 0, "event 4 has the impossible time"),
    "token": (10, WIDTH - 1, HEIGHT - 1, "event 4 has token .* outside the model's vocabulary of 8"),
}


@pytest.mark.parametrize("dt", GAPS)
@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("way", ["event", "push", "push after good ones"])
def test_a_refused_event_changes_nothing(dt, fault, way):
    t, x, y, message = BAD[fault]
    stream = TokenDt("linear", WIDTH, HEIGHT, dt, 8 if fault == "token" else 70).open()
    good = Events([1, 2, 2, 9], [0, 1, 2, 3], [0, 0, 0, 0], [0, 0, 0, 0])
    if way == "push after good ones":
        before = stream.snapshot()
        with pytest.raises(UserError, match=message):
            stream.push(Events([*good.t, t], [*good.x, x], [*good.y, y], [*good.p, False]))
    else:
        stream.push(good)
        before = stream.snapshot()
        with pytest.raises(UserError, match=message):
            if way == "event":
                stream.push_event(t, x, y, False)
            else:
                stream.push(Events([t], [x], [y], [False]))
    assert stream.snapshot() == before


@pytest.mark.parametrize("row", [(0, -1, 0, False), (0, 0, -1, False), (-LATEST - 1, 0, 0, False)])
def test_push_event_refuses_what_columns_cannot_hold(row):
    with pytest.raises(UserError):
        TokenDt("linear", WIDTH, HEIGHT, "next", 70).open().push_event(*row)


def test_time_that_wraps_around_is_a_step_back():
    stream = TokenDt("linear", WIDTH, HEIGHT, "previous", 70).open()
    with pytest.raises(UserError):
        stream.push(Events([2**63 - 1, -(2**63)], [0, 0], [0, 0], [0, 0]))
    stream.push(Events([LATEST], [0], [0], [0]))
    with pytest.raises(UserError, match="earlier"):
        stream.push(Events([-LATEST], [0], [0], [0]))


def test_declaration_survives_json():
    for spec in SPECS:
        assert front_end(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "diagonal"}, "token rule 'diagonal' does not exist; choose one of channel, product, linear"),
        ({"dt": "both"}, "dt 'both' does not exist; choose one of next, previous"),
        ({"kind": "ring"}, "front end 'ring' is unknown.*token_dt"),
        ({"width": 0}, "needs a positive whole width, not 0"),
        ({"height": "5"}, "needs a positive whole height, not '5'"),
        ({"vocabulary": 2.5}, "needs a positive whole vocabulary, not 2.5"),
        ({"fixed_dt_us": -1.0}, "fixed dt of -1.0 us"),
        ({"colour": 1}, "declaration of front end token_dt cannot be read"),
    ],
)
def test_bad_declarations_are_one_sentence(change, message):
    with pytest.raises(UserError, match=message):
        front_end({**SPECS[0].to_json(), **change})


CASES = [
    "dvs_small",
    "dvs_tiny",
    "port_tiny",
    "shd_tiny",
    "ssc_small",
    "tiny_async_last",
    "tiny_batch_one",
    "tiny_three_stages",
]


@pytest.mark.parametrize("case", CASES)
def test_published_tokens_and_gaps(golden, case):
    arrays, data = golden.arrays(f"event_ssm_{case}"), golden.json(f"event_ssm_{case}_config")["data"]
    resolution = data["resolution"]
    # The PyTorch port counts pixels line by line; the published implementation multiplies x and y.
    rule = "channel" if len(resolution) == 1 else "linear" if case.startswith("port") else "product"
    spec = TokenDt(rule, resolution[0], [*resolution, 1][1], "next", data["num_embeddings"])
    for sample, (tokens, gaps) in enumerate(zip(arrays["tokens"], arrays["timesteps"], strict=True)):
        t, x = arrays[f"events/{sample}/t"], arrays[f"events/{sample}/x"]
        y, p = (arrays.get(f"events/{sample}/{name}", np.zeros(len(t), np.int64)) for name in "yp")
        items = spec.open().push(Events(t, x, y, p))
        count = len(t) - 1
        np.testing.assert_array_equal(items["token"], tokens[:count])
        np.testing.assert_array_equal(items["dt"], gaps[:count])
        assert (tokens[count:] == -1).all()
