"""Front end `window`: the last N events, every H events from the N-th on (Event2Vec).

    token_i = x + W y + W H p      of event i
    time_i  = t                    in ticks, as it arrived

One item is a whole window, (N,) of each, oldest event first. Times stay integers, so that the model takes their
differences before anything is rounded.

This file is the definition; generated code is tested against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from runtime.errors import UserError
from runtime.events.container import Events
from runtime.front_ends.limits import LATEST, check_events, refuse
from runtime.program import TensorSpec


@dataclass(frozen=True)
class Window:
    """The declaration of the front end; `open` starts a stream.

    Attributes:
        width: Sensor columns W.
        height: Sensor rows.
        window: Events N in a window, at least 2.
        hop: Events H between the ends of two windows.
    """

    width: int
    height: int
    window: int
    hop: int
    kind: str = "window"

    def __post_init__(self) -> None:
        if self.kind != "window":
            raise UserError(f"front end {self.kind!r} is not window")
        for name, least in (("width", 1), ("height", 1), ("window", 2), ("hop", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"front end window needs a whole {name} of at least {least}, not {value!r}")

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Window:
        """The declaration from a manifest.

        Raises:
            UserError: If the table has other keys than the declaration, or values that it cannot have.
        """
        try:
            return cls(**table)
        except TypeError as error:
            raise UserError(f"this declaration of front end window cannot be read ({error})") from None

    def to_json(self) -> dict[str, Any]:
        """The declaration for a manifest."""
        return asdict(self)

    @property
    def rule(self) -> str:
        """How coordinates become tokens, in the words of front end `token_dt`."""
        return "linear"

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return 2 * self.width * self.height

    @property
    def items(self) -> tuple[TensorSpec, ...]:
        """The values of one item."""
        return (
            TensorSpec("token", "int64", (self.window,), (0, self.vocabulary)),
            TensorSpec("time", "int64", (self.window,), unit="ticks"),
        )

    def open(self, tick_us: float = 1.0) -> WindowStream:
        """A stream at its beginning; what a tick lasts makes no difference to the items."""
        return WindowStream(self)


class WindowStream:
    """The front end of one running stream: a ring of the last N events.

    A push that fails leaves the stream as it was.
    """

    def __init__(self, spec: Window) -> None:
        self.spec = spec
        # Twice the window: the newest events are moved to the front once in N events, and a window is one piece.
        self._token = np.zeros(2 * spec.window, np.int64)
        self._time = np.zeros(2 * spec.window, np.int64)
        self.reset()

    def reset(self) -> None:
        """Forgets every event."""
        self._events = 0
        self._end = 0

    def snapshot(self) -> dict[str, Any]:
        """Everything the stream remembers: the number of events, and the newest N of them."""
        kept = self._kept
        return {"events": self._events, "token": self._token[kept].copy(), "time": self._time[kept].copy()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continues where `snapshot` was taken.

        Raises:
            UserError: If the snapshot holds another number of events than such a stream does.
        """
        events, count = int(snapshot["events"]), len(snapshot["token"])
        if count != min(events, self.spec.window) or len(snapshot["time"]) != count:
            raise UserError(
                f"this snapshot holds {count} events where a window of {self.spec.window} after {events} events "
                f"holds {min(events, self.spec.window)}; restore it into a session of the same bundle"
            )
        self._events, self._end = events, count
        self._token[:count], self._time[:count] = snapshot["token"], snapshot["time"]

    def push(self, events: Events) -> dict[str, np.ndarray]:
        """Takes events and returns the windows that they complete.

        Args:
            events: Any number of events, in time order.

        Returns:
            `token` and `time`, (K, N) int64, K windows in order; windows share memory.

        Raises:
            UserError: If an event lies outside the sensor or goes back in time, or if a window's events all have the
                same time, for which the model has no answer.
        """
        spec, size = self.spec, self.spec.window
        if not len(events):
            return {"token": np.empty((0, size), np.int64), "time": np.empty((0, size), np.int64)}
        check_events(events, spec.width, spec.height, self._events, self._last)
        kept = self._kept
        token = np.concatenate([self._token[kept], self._tokens(events)])
        time = np.concatenate([self._time[kept], events.t.astype(np.int64)])
        total = self._events + len(events)
        # Counted from the stream's beginning, windows end after N, N + H, N + 2 H .. events.
        first = max(0, -(-(self._events + 1 - size) // spec.hop)) * spec.hop + size
        begins = np.arange(first, total + 1, spec.hop) - size - (total - len(token))
        still = time[begins] == time[begins + size - 1]
        if still.any():
            self._refuse(int(time[begins[still.argmax()]]))
        newest = slice(max(0, len(token) - size), None)
        self._events, self._end = total, len(token[newest])
        self._token[: self._end], self._time[: self._end] = token[newest], time[newest]
        if not len(begins):
            return {"token": np.empty((0, size), np.int64), "time": np.empty((0, size), np.int64)}
        rows = slice(int(begins[0]), None, spec.hop)
        return {"token": _windows(token, size)[rows], "time": _windows(time, size)[rows]}

    def push_event(self, t: int, x: int, y: int, p: bool) -> tuple[np.ndarray, np.ndarray] | None:
        """The fast path of `push` for one event.

        Args:
            t: Ticks.
            x: Column.
            y: Row.
            p: Polarity.

        Returns:
            (token, time), (N,) each, of the window that became complete, or `None`.

        Raises:
            UserError: As `push`.
        """
        spec, t, x, y = self.spec, int(t), int(x), int(y)
        last = self._last
        if not (0 <= x < spec.width and 0 <= y < spec.height and -LATEST <= t <= LATEST) or (
            last is not None and t < last
        ):
            refuse(t, x, y, spec.width, spec.height, self._events, last)
        count, size = self._events + 1, spec.window
        due = count >= size and (count - size) % spec.hop == 0
        if due and self._time[self._end - size + 1] == t:
            self._refuse(t)
        if self._end == 2 * size:
            self._token[:size], self._time[:size] = self._token[size:], self._time[size:]
            self._end = size
        self._token[self._end] = x + spec.width * (y + spec.height * bool(p))
        self._time[self._end] = t
        self._events, self._end = count, self._end + 1
        if not due:
            return None
        kept = self._kept
        return self._token[kept].copy(), self._time[kept].copy()

    @property
    def _kept(self) -> slice:
        """The newest events, at most N."""
        return slice(max(0, self._end - self.spec.window), self._end)

    @property
    def _last(self) -> int | None:
        """Time of the newest event."""
        return int(self._time[self._end - 1]) if self._end else None

    def _tokens(self, events: Events) -> np.ndarray:
        x, y, p = (value.astype(np.int64) for value in (events.x, events.y, events.p))
        return x + self.spec.width * (y + self.spec.height * p)

    def _refuse(self, t: int) -> None:
        raise UserError(
            f"{self.spec.window} events in a row have the same time t={t}, so a window of them has no time scale; "
            "check the recording's times, or export with a longer window"
        )


def _windows(column: np.ndarray, size: int) -> np.ndarray:
    """(M,) -> (M - N + 1, N), without a copy."""
    return sliding_window_view(column, size, writeable=True)
