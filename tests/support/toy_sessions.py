"""What tests ask of sessions of the toy program, whatever runs them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from runtime.errors import UserError
from runtime.events import Events

STATES = ("v", "sums", "peak", "g", "deep")


def everything(session) -> dict[str, np.ndarray]:
    """Readout and states."""
    return {"readout": session.readout(), **{name: session.state(name) for name in STATES}}


def assert_same(session, other) -> None:
    """To the last bit."""
    left, right = everything(session), everything(other)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    assert session.items == other.items


def push_singly(session, events: Events) -> None:
    """By `push_event`."""
    for t, x, y, p in zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True):
        session.push_event(t, x, y, p)


def assert_refuses_snapshots_of_other_programs(session, *more: Callable[[dict], Any]) -> None:
    """A snapshot that was changed is refused, by `more` too, and the session stays as it was."""
    before, items = everything(session), session.items
    good = session.snapshot()
    for change in (
        lambda s: s.pop("states"),
        lambda s: s["states"].pop("v"),
        lambda s: s["states"].update(v=np.zeros(5, np.float32)),
        lambda s: s["states"].update(v=np.zeros(4, np.float64)),
        lambda s: s["counts"].pop(),
        lambda s: s["counts"].__setitem__(0, 7),
        lambda s: s["items"].pop("dt"),
        *more,
    ):
        bad = copy.deepcopy(good)
        change(bad)
        with pytest.raises(UserError, match="another program"):
            session.restore(bad)
    for name, value in everything(session).items():
        np.testing.assert_array_equal(value, before[name])
    assert session.items == items
