"""Front end `token_dt`: one item per event pair, a token and the gap in milliseconds (event-ssm, spec 1).

    token = x                      rule `channel`  (audio)
          | x y + W H p            rule `product`  (what the published DVS checkpoints were trained with)
          | x + W y + W H p        rule `linear`
    dt    = (t_next - t) / 1000    `next`: the gap after the event, so event k becomes an item when event k+1 arrives
          | (t - t_previous)/1000  `previous`: the gap before it (0 for the first), so every event is an item at once

This file is the definition; generated code is tested against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from runtime.errors import UserError
from runtime.events.container import Events
from runtime.front_ends.limits import LATEST, check_events, refuse, refuse_intensity
from runtime.program import TensorSpec

RULES = ("channel", "product", "linear")
GAPS = ("next", "previous")


@dataclass(frozen=True)
class TokenDt:
    """The declaration of the front end; `open` starts a stream.

    Attributes:
        rule: `channel`, `product` or `linear`.
        width: Sensor columns W, or channels.
        height: Sensor rows H, 1 for audio.
        dt: `next` or `previous`.
        vocabulary: Number of tokens the model knows; tokens lie in `[0, vocabulary)`.
        fixed_dt_us: If set, every gap counts as this many microseconds (the ablation without time information).
    """

    rule: str
    width: int
    height: int
    dt: str
    vocabulary: int
    fixed_dt_us: float | None = None
    kind: str = "token_dt"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UserError(f"token rule {self.rule!r} does not exist; choose one of {', '.join(RULES)}")
        if self.dt not in GAPS:
            raise UserError(f"dt {self.dt!r} does not exist; choose one of {', '.join(GAPS)}")
        if self.kind != "token_dt":
            raise UserError(f"front end {self.kind!r} is not token_dt")
        for name in ("width", "height", "vocabulary"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise UserError(f"front end token_dt needs a positive whole {name}, not {value!r}")
        if self.fixed_dt_us is not None and not 0 <= self.fixed_dt_us < float("inf"):
            raise UserError(f"a fixed dt of {self.fixed_dt_us!r} us is not possible; give a number from 0 on")

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> TokenDt:
        """The declaration from a manifest.

        Raises:
            UserError: If the table has other keys than the declaration, or values that it cannot have.
        """
        try:
            return cls(**table)
        except TypeError as error:
            raise UserError(f"this declaration of front end token_dt cannot be read ({error})") from None

    def to_json(self) -> dict[str, Any]:
        """The declaration for a manifest."""
        return asdict(self)

    @property
    def items(self) -> tuple[TensorSpec, ...]:
        """The values of one item; `elapsed` is the sum of all gaps so far."""
        return (
            TensorSpec("token", "int64", (), (0, self.vocabulary)),
            TensorSpec("dt", "float32", (), unit="ms"),
            TensorSpec("elapsed", "float32", (), unit="ms"),
        )

    def tokens(self, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> np.ndarray:
        """(N,) int64 tokens of (N,) coordinates; the caller has checked their ranges."""
        x = x.astype(np.int64)
        if self.rule == "channel":
            return x
        y, p = y.astype(np.int64), p.astype(np.int64)
        plane = self.width * self.height
        return (x * y if self.rule == "product" else x + self.width * y) + plane * p

    def open(self, tick_us: float = 1.0) -> TokenDtStream:
        """A stream at its beginning, of a sensor whose tick lasts `tick_us` microseconds."""
        return TokenDtStream(self, tick_us)


class TokenDtStream:
    """The front end of one running stream: pairs events with gaps and checks them.

    A push that fails leaves the stream as it was.
    """

    def __init__(self, spec: TokenDt, tick_us: float = 1.0) -> None:
        self.spec = spec
        self.tick_us = tick_us
        self.reset()

    def reset(self) -> None:
        """Forgets every event."""
        self._events = 0
        self._elapsed = 0.0
        self._last = 0
        self._pending = 0

    def snapshot(self) -> dict[str, int | float]:
        """Everything the stream remembers, as plain numbers."""
        return {"events": self._events, "last": self._last, "pending": self._pending, "elapsed": self._elapsed}

    def restore(self, snapshot: Mapping[str, int | float]) -> None:
        """Continues where `snapshot` was taken."""
        self._events, self._last = int(snapshot["events"]), int(snapshot["last"])
        self._pending, self._elapsed = int(snapshot["pending"]), float(snapshot["elapsed"])

    def push(self, events: Events) -> dict[str, np.ndarray]:
        """Takes events and returns the items that became complete.

        Args:
            events: Any number of events, in time order.

        Returns:
            `token` (N,) int64, `dt` (N,) float32 and `elapsed` (N,) float64, in milliseconds.

        Raises:
            UserError: If an event lies outside the sensor, goes back in time or has a token the model does not know.
        """
        if events.intensity is not None:
            refuse_intensity()
        if not len(events):
            return {"token": np.empty(0, np.int64), "dt": np.empty(0, np.float32), "elapsed": np.empty(0, np.float64)}
        token = self._check(events)
        pending = 0
        if self.spec.dt == "previous":
            t = np.concatenate([[self._last] if self._events else events.t[:1], events.t])
        else:
            pending = int(token[-1])
            if self._events:
                t, token = np.concatenate([[self._last], events.t]), np.concatenate([[self._pending], token[:-1]])
            else:
                t, token = events.t, token[:-1]
        if self.spec.fixed_dt_us is None:
            dt = (np.diff(t) * self.tick_us / 1000).astype(np.float32)
        else:
            dt = np.full(len(token), self.spec.fixed_dt_us / 1000, np.float32)
        # One running sum, in the order of single pushes, so that splits of a stream agree to the last bit.
        elapsed = np.cumsum(np.concatenate([[self._elapsed], dt]), dtype=np.float64)
        self._events, self._last = self._events + len(events), int(events.t[-1])
        self._pending, self._elapsed = pending, float(elapsed[-1])
        return {"token": token, "dt": dt, "elapsed": elapsed[1:]}

    def push_event(
        self, t: int, x: int, y: int, p: bool, intensity: float | None = None
    ) -> tuple[int, float, float] | None:
        """The fast path of `push` for one event.

        Args:
            t: Ticks.
            x: Column or channel.
            y: Row or ear.
            p: Polarity.
            intensity: Must not be given: items are single events.

        Returns:
            (token, dt, elapsed) of the item that became complete, or `None` while it waits for the next event.

        Raises:
            UserError: As `push`.
        """
        if intensity is not None:
            refuse_intensity()
        # Scalars of NumPy's narrow types would wrap in the products below.
        spec, t, x, y = self.spec, int(t), int(x), int(y)
        if not (0 <= x < spec.width and 0 <= y < spec.height and -LATEST <= t <= LATEST):
            refuse(t, x, y, spec.width, spec.height, self._events, self._last)
        if self._events and t < self._last:
            refuse(t, x, y, spec.width, spec.height, self._events, self._last)
        if spec.rule == "channel":
            token = x
        else:
            token = (x * y if spec.rule == "product" else x + spec.width * y) + spec.width * spec.height * bool(p)
        if token >= spec.vocabulary:
            self._refuse_token(token, self._events)
        first, gap = not self._events, t - self._last
        self._events, self._last = self._events + 1, t
        if spec.dt == "next":
            token, self._pending = self._pending, token
            if first:
                return None
        elif first:
            gap = 0
        dt = gap * self.tick_us / 1000 if spec.fixed_dt_us is None else spec.fixed_dt_us / 1000
        dt = float(np.float32(dt))
        self._elapsed += dt
        return token, dt, self._elapsed

    def _check(self, events: Events) -> np.ndarray:
        """The tokens of events that can all be taken."""
        spec, last = self.spec, self._last if self._events else None
        check_events(events, spec.width, spec.height, self._events, last)
        token = spec.tokens(events.x, events.y, events.p)
        if (unknown := token >= spec.vocabulary).any():
            row = int(unknown.argmax())
            self._refuse_token(int(token[row]), self._events + row)
        return token

    def _refuse_token(self, token: int, number: int) -> None:
        raise UserError(
            f"event {number} has token {token}, outside the model's vocabulary of {self.spec.vocabulary}; "
            "check token rule and sensor size"
        )
