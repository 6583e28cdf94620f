"""The checks behind `verify`: files, golden trace, step against chunk, snapshots. No torch, only the bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np

from runtime.bundle import TRACE, Bundle
from runtime.errors import UserError
from runtime.events import Recording
from runtime.open import open_session
from runtime.providers import CPU
from runtime.session import Session
from runtime.trace import Deviation, Trace, compare, record

# Fixed before any measurement, relative to the largest value that a tensor reaches in the trace.
BOUNDS = {"fp32": 1e-4}
SPLITS = 3
CUTS = 20


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: What was checked.
        passed: Whether it held.
        detail: For people: how far off the worst tensor was, or what went wrong.
        figures: The same for programs.
    """

    name: str
    passed: bool
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)


def bound(bundle: Bundle) -> float:
    """The largest relative deviation that this bundle may have.

    Raises:
        UserError: If the manifest has none and its precision has no fixed one.
    """
    stated, dtype = bundle.parity.get("bound"), bundle.manifest["target"].get("dtype", "fp32")
    if isinstance(stated, dict):
        stated = stated.get("relative")
    if stated is None:
        stated = BOUNDS.get(dtype)
    if not isinstance(stated, int | float) or not 0 < stated < float("inf"):
        raise UserError(f"{bundle.root} states no usable bound for its precision {dtype}; export the model again")
    return float(stated)


def run_checks(
    bundle: Bundle, *, recording: Recording | None = None, threads: int = 1, seed: int = 0, provider: str = CPU
) -> Iterator[Check]:
    """Runs every check, one after the other; what cannot run after a failure is left out.

    Args:
        bundle: The bundle.
        recording: A recording of the right sensor, to be pushed event by event and in bulk too.
        threads: Threads within a stage.
        seed: Of the random splits.
        provider: What ONNX Runtime computes with.

    Yields:
        The outcomes, in order.
    """
    yield (files := _files(bundle))
    if not files.passed:
        return
    limit, trace = bound(bundle), Trace.from_bytes(bundle.read(TRACE))
    start = partial(open_session, bundle, threads=threads, require_proof=False, provider=provider)
    stepped = start(tick_us=trace.tick_us, use_chunk=False)
    bulk = start(tick_us=trace.tick_us)
    yield _against_reference("golden trace, event by event", stepped, trace, limit, event_by_event=True)
    yield _against_reference("golden trace, in bulk", bulk, trace, limit, event_by_event=False)
    rng = np.random.default_rng(seed)
    yield _splits(f"any split equals single steps ({SPLITS} random)", stepped, bulk, trace, limit, rng)
    yield _snapshots("restore(snapshot()) continues the stream", start, trace, limit, rng)
    if recording is not None and len(recording.events):
        stepped, bulk = start(tick_us=recording.tick_us, use_chunk=False), start(tick_us=recording.tick_us)
        marks = _marks(len(recording.events), CUTS, rng)
        own = record(bulk, recording.events, marks, tick_us=recording.tick_us, source=recording.source)
        yield _judge("your recording, event by event against bulk", compare(stepped, own), limit)


def _files(bundle: Bundle) -> Check:
    name, count = "files are those that were exported", len(bundle.manifest["files"])
    try:
        bundle.verify_files()
    except UserError as error:
        return Check(name, False, str(error))
    return Check(name, True, f"{count} SHA-256", {"files": count})


def _against_reference(name: str, session: Session, trace: Trace, limit: float, *, event_by_event: bool) -> Check:
    deviations = compare(session, trace, pieces=None if event_by_event else _whole(trace))
    return _judge(name, deviations, limit, {"readouts": len(trace.marks)})


def _splits(name: str, stepped: Session, bulk: Session, trace: Trace, limit: float, rng: np.random.Generator) -> Check:
    deviations: list[Deviation] = []
    for _ in range(SPLITS):
        # The trace's own marks are among the cuts, so that every tensor is measured on the scale it has there.
        marks = np.union1d(_marks(len(trace.events), CUTS, rng), trace.marks)
        own = record(stepped, trace.events, marks, tick_us=trace.tick_us, source=trace.source)
        deviations += compare(bulk, own, pieces=_whole(own))
    return _judge(name, deviations, limit)


def _snapshots(name: str, start: Callable[..., Session], trace: Trace, limit: float, rng: np.random.Generator) -> Check:
    """Every stretch between two marks runs in the session that did not run the stretch before."""
    sessions = [start(tick_us=trace.tick_us, use_chunk=False) for _ in range(2)]
    marks = np.union1d(_marks(len(trace.events), CUTS, rng), trace.marks)
    own = record(sessions[0], trace.events, marks, tick_us=trace.tick_us, source=trace.source)
    for session in sessions:
        session.reset()
    relay = _Relay(*sessions)
    return _judge(name, compare(relay, own, pieces=_whole(own)), limit)


class _Relay(Session):
    """Two sessions that hand the stream to each other by snapshot before every push."""

    def __init__(self, first: Session, second: Session) -> None:
        self.spec = first.spec
        self._now, self._other = first, second

    @property
    def items(self) -> int:  # type: ignore[override]
        return self._now.items

    def reset(self) -> None:
        self._now.reset()

    def push(self, events: Any) -> int:
        self._other.restore(self._now.snapshot())
        self._now, self._other = self._other, self._now
        return self._now.push(events)

    def push_event(self, t: int, x: int, y: int, p: bool, intensity: float | None = None) -> int:
        return self._now.push_event(t, x, y, p, intensity)

    def settle(self) -> None:
        self._now.settle()

    def readout(self) -> np.ndarray:
        return self._now.readout()

    def state(self, name: str) -> np.ndarray:
        return self._now.state(name)

    def snapshot(self) -> dict[str, Any]:
        return self._now.snapshot()

    def restore(self, snapshot: Any) -> None:
        self._now.restore(snapshot)


def _whole(trace: Trace) -> Iterator[int]:
    """Push sizes that take everything up to the next mark at once."""
    return repeat(len(trace.events))


def _marks(count: int, cuts: int, rng: np.random.Generator) -> np.ndarray:
    """Up to `cuts` random numbers of events, increasing, the last one all of them."""
    return np.union1d(rng.integers(1, count + 1, cuts), [count])


def _judge(name: str, deviations: list[Deviation], limit: float, figures: dict[str, Any] | None = None) -> Check:
    figures = {"bound": limit, **(figures or {})}
    # Written so that NaN is over the bound.
    for deviation in deviations:
        if not deviation.relative <= limit:
            first = {"mark": deviation.mark, "tensor": deviation.what, "relative": deviation.relative}
            detail = (
                f"first divergence after {deviation.mark} events in {deviation.what}: "
                f"{deviation.relative:.1e} relative ({deviation.absolute:.1e} absolute), bound {limit:.0e}"
            )
            return Check(name, False, detail, {**figures, "first_divergence": first})
    worst = max(deviations, key=lambda deviation: deviation.relative)
    figures |= {"worst_relative": worst.relative, "worst_tensor": worst.what, "worst_at_event": worst.mark}
    detail = f"worst {worst.relative:.1e} ({worst.what} at {worst.mark} events)" if worst.relative else "no difference"
    return Check(name, True, detail, figures)
