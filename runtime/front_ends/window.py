"""Front end `window`: the last N events, every H events from the N-th on (Event2Vec).

    token_i     = x + W y + W H p      of event i
    time_i      = t                    in ticks, as it arrived
    intensity_i = how many readings it stands for, where the model was trained on clusters; single events count as 1

One item is a whole window, (N,) of each, oldest event first. Times stay integers, so that the model takes their
differences before anything is rounded. With `every` K the events number K, 2K, .. make the windows and the others only
let time pass; N and H count those that are taken.

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
from runtime.front_ends.limits import LATEST, check_events, refuse, refuse_intensity
from runtime.program import TensorSpec


@dataclass(frozen=True)
class Window:
    """The declaration of the front end; `open` starts a stream.

    Attributes:
        width: Sensor columns W.
        height: Sensor rows.
        window: Events N in a window, at least 2.
        hop: Events H between the ends of two windows.
        every: One event of so many is taken.
        intensity: Whether items tell the intensity of every event.
        scaled: Whether the model divides by the time that a window takes, so that windows of no duration are refused.
    """

    width: int
    height: int
    window: int
    hop: int
    every: int = 1
    intensity: bool = False
    scaled: bool = True
    kind: str = "window"

    def __post_init__(self) -> None:
        if self.kind != "window":
            raise UserError(f"front end {self.kind!r} is not window")
        for name, least in (("width", 1), ("height", 1), ("window", 2), ("hop", 1), ("every", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"front end window needs a whole {name} of at least {least}, not {value!r}")
        for name in ("intensity", "scaled"):
            if not isinstance(value := getattr(self, name), bool):
                raise UserError(f"front end window: {name} is {value!r}, it must be true or false")

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
        """The declaration for a manifest; what is as usual is left out, so that older runtimes read it too."""
        usual = {"every": 1, "intensity": False, "scaled": True}
        return {name: value for name, value in asdict(self).items() if name not in usual or value != usual[name]}

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
        weight = (TensorSpec("intensity", "float32", (self.window,)),) if self.intensity else ()
        return (
            TensorSpec("token", "int64", (self.window,), (0, self.vocabulary)),
            TensorSpec("time", "int64", (self.window,), unit="ticks"),
            *weight,
        )

    def events_at(self, item: int) -> int:
        """Events of a stream after which its item number `item`, from 0, is complete."""
        return (self.window + item * self.hop) * self.every

    def open(self, tick_us: float = 1.0) -> WindowStream:
        """A stream at its beginning, of a sensor whose tick lasts `tick_us` microseconds.

        Raises:
            UserError: If the model is not scaled, so that it counts microseconds, and a tick is none. What a tick lasts
                makes no difference to scaled models.
        """
        if not self.scaled and tick_us != 1:
            raise UserError(
                f"this model counts microseconds, but a tick of this recording lasts {tick_us} us; "
                "write it again with times in microseconds"
            )
        return WindowStream(self)


class WindowStream:
    """The front end of one running stream: a ring of the last N events that were taken.

    A push that fails leaves the stream as it was.
    """

    def __init__(self, spec: Window) -> None:
        self.spec = spec
        # Twice the window: the newest events are moved to the front once in N events, and a window is one piece.
        self._ring = {item.name: np.zeros(2 * spec.window, item.dtype) for item in spec.items}
        self._time = self._ring["time"]
        self.reset()

    def reset(self) -> None:
        """Forgets every event."""
        self._events = 0
        self._end = 0
        self._newest = 0

    def snapshot(self) -> dict[str, Any]:
        """Everything the stream remembers: the number of events, the newest time, and the newest N that were taken."""
        kept = self._kept
        columns = {name: column[kept].copy() for name, column in self._ring.items()}
        return {"events": self._events, "last": self._newest, **columns}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continues where `snapshot` was taken.

        Raises:
            UserError: If the snapshot holds another number of events than such a stream does.
        """
        events, count = int(snapshot["events"]), len(snapshot["token"])
        wanted = min(events // self.spec.every, self.spec.window)
        if any(len(snapshot[name]) != wanted for name in self._ring):
            raise UserError(
                f"this snapshot holds {count} events where a window of {self.spec.window} after {events} events "
                f"holds {wanted}; restore it into a session of the same bundle"
            )
        self._events, self._end, self._newest = events, count, int(snapshot["last"])
        for name, column in self._ring.items():
            column[:count] = snapshot[name]

    def push(self, events: Events) -> dict[str, np.ndarray]:
        """Takes events and returns the windows that they complete.

        Args:
            events: Any number of events, in time order.

        Returns:
            `token` and `time`, (K, N) int64, and `intensity`, (K, N) float32, where it is an item; K windows in order,
            which share memory.

        Raises:
            UserError: If an event lies outside the sensor or goes back in time, if it has an intensity that the model
                does not take, or if a window's events all have the same time, for which a scaled model has no answer.
        """
        spec, size = self.spec, self.spec.window
        if events.intensity is not None and not spec.intensity:
            refuse_intensity()
        if not len(events):
            return self._nothing()
        check_events(events, spec.width, spec.height, self._events, self._last)
        total = self._events + len(events)
        taken = events if spec.every == 1 else events[-(self._events + 1) % spec.every :: spec.every]
        new = {"token": self._tokens(taken), "time": taken.t, "intensity": taken.intensities}
        kept = self._kept
        columns = {name: np.concatenate([ring[kept], new[name]]) for name, ring in self._ring.items()}
        time = columns["time"]
        before, count = self._events // spec.every, total // spec.every
        # Counted from the stream's beginning, windows end after N, N + H, N + 2 H .. events taken.
        first = max(0, -(-(before + 1 - size) // spec.hop)) * spec.hop + size
        begins = np.arange(first, count + 1, spec.hop) - size - (count - len(time))
        still = time[begins] == time[begins + size - 1]
        if spec.scaled and still.any():
            self._refuse(int(time[begins[still.argmax()]]))
        newest = slice(max(0, len(time) - size), None)
        self._events, self._end, self._newest = total, len(time[newest]), int(events.t[-1])
        for name, ring in self._ring.items():
            ring[: self._end] = columns[name][newest]
        if not len(begins):
            return self._nothing()
        rows = slice(int(begins[0]), None, spec.hop)
        return {name: _windows(column, size)[rows] for name, column in columns.items()}

    def push_event(
        self, t: int, x: int, y: int, p: bool, intensity: float | None = None
    ) -> tuple[np.ndarray, ...] | None:
        """The fast path of `push` for one event.

        Args:
            t: Ticks.
            x: Column.
            y: Row.
            p: Polarity.
            intensity: How many readings it stands for; 1 if not given.

        Returns:
            The values of the item that became complete, (N,) each, or `None`.

        Raises:
            UserError: As `push`.
        """
        spec, t, x, y = self.spec, int(t), int(x), int(y)
        last = self._last
        if not (0 <= x < spec.width and 0 <= y < spec.height and -LATEST <= t <= LATEST) or (
            last is not None and t < last
        ):
            refuse(t, x, y, spec.width, spec.height, self._events, last)
        if intensity is not None:
            if not spec.intensity:
                refuse_intensity()
            # The container knows what an intensity may be.
            Events(np.array([t]), np.array([x]), np.array([y]), np.array([bool(p)]), np.array([intensity], np.float64))
        if (self._events + 1) % spec.every:
            self._events, self._newest = self._events + 1, t
            return None
        count, size = (self._events + 1) // spec.every, spec.window
        due = count >= size and (count - size) % spec.hop == 0
        if due and spec.scaled and self._time[self._end - size + 1] == t:
            self._refuse(t)
        if self._end == 2 * size:
            for ring in self._ring.values():
                ring[:size] = ring[size:]
            self._end = size
        row = (x + spec.width * (y + spec.height * bool(p)), t, 1.0 if intensity is None else intensity)
        for ring, value in zip(self._ring.values(), row, strict=False):
            ring[self._end] = value
        self._events, self._end, self._newest = self._events + 1, self._end + 1, t
        if not due:
            return None
        return tuple(ring[self._kept].copy() for ring in self._ring.values())

    @property
    def _kept(self) -> slice:
        """The newest events, at most N."""
        return slice(max(0, self._end - self.spec.window), self._end)

    @property
    def _last(self) -> int | None:
        """Time of the newest event."""
        return self._newest if self._events else None

    def _nothing(self) -> dict[str, np.ndarray]:
        return {name: np.empty((0, self.spec.window), ring.dtype) for name, ring in self._ring.items()}

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
