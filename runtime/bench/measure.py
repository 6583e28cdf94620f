"""One benchmark: the passes in their order, on sessions that are opened once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.bench import figures, loops
from runtime.bench.workload import Workload, arrivals
from runtime.bundle import Bundle
from runtime.open import open_session
from runtime.providers import CPU
from runtime.session import ScheduledSession


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        warmup: Events at the beginning of every pass that are not counted.
        batch: Independent sessions, interleaved event by event.
        readout_every: In the passes that answer, ask at every so many-th event.
        rate: Events per second of the open loop, `recorded` for the recording's own times, `None` for no open loop.
        threads: Threads within a stage.
        provider: What ONNX Runtime computes with.
    """

    warmup: int
    batch: int = 1
    readout_every: int = 1
    rate: float | str | None = None
    threads: int = 1
    provider: str = CPU


@dataclass(frozen=True, eq=False)
class Result:
    """What came out.

    Attributes:
        modes: Name of the pass -> its figures.
        stages: The breakdown by stage, `None` where the backend does not fire stages one by one.
        queue: How the open loop's queue fared, `None` without one.
        clock_ns: What one clock read costs; it is part of every latency.
        open_ms: How long it took to open one session: files, hashes, graphs.
        raw: Name of the pass -> (N,) int64 nanoseconds.
    """

    modes: dict[str, dict[str, Any]]
    stages: dict[str, Any] | None
    queue: dict[str, Any] | None
    clock_ns: float
    open_ms: float
    raw: dict[str, np.ndarray] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All figures, without the raw samples."""
        collector = "on" if gc.isenabled() else "off"
        table = {"clock_read_ns": self.clock_ns, "open_ms": self.open_ms, "garbage_collector": collector}
        return {**table, "modes": self.modes, "stages": self.stages, "queue": self.queue}


def measure(bundle: Bundle, workload: Workload, plan: Plan, progress: Callable[[str], None] = lambda _: None) -> Result:
    """Runs all passes on one stream.

    Args:
        bundle: A bundle whose parity is green on this machine; the caller has seen to that.
        workload: The stream, warm-up included.
        plan: What to measure.
        progress: Called with the name of each pass as it begins.
    """

    def start(use_chunk: bool = False) -> Any:
        return open_session(
            bundle, tick_us=workload.tick_us, threads=plan.threads, use_chunk=use_chunk, provider=plan.provider
        )

    spec, warmup = bundle.program, plan.warmup
    rows = loops.rows_of(workload.events)
    begin = loops.clock()
    sessions = [start()]
    open_ms = (loops.clock() - begin) / 1e6
    sessions += [start() for _ in range(plan.batch - 1)]
    modes: dict[str, dict[str, Any]] = {}
    raw: dict[str, np.ndarray] = {}
    clock_ns = loops.clock_cost()

    for name, every in (("event by event", 0), (_answering(plan.readout_every), plan.readout_every)):
        progress(name)
        timed = loops.closed_loop(sessions, rows, warmup, every)
        raw[name] = timed.taken
        pace = loops.sustained(sessions, rows, warmup, every)
        kinds = {} if every else {"by_depth": figures.by_depth(timed, spec)}
        modes[name] = {**figures.latency(timed.taken), **_rates(pace), **kinds}

    waiting = None
    if plan.rate is not None:
        progress("open loop")
        due = arrivals(workload, plan.rate, warmup)
        timed = loops.open_loop(sessions[0], rows, warmup, due, plan.readout_every)
        raw["open loop"] = timed.taken
        modes["open loop, from scheduled arrival to answer"] = figures.latency(timed.taken)
        waiting = figures.queue(timed, due)

    progress("bulk")
    modes["bulk push, single steps"] = _amortised(loops.bulk(sessions, workload.events, warmup))
    if spec.chunk:
        chunked = [start(use_chunk=True) for _ in range(plan.batch)]
        modes["bulk push, chunk form"] = _amortised(loops.bulk(chunked, workload.events, warmup))

    stages = None
    if isinstance(sessions[0], ScheduledSession):
        progress("stages")
        taken, total = loops.by_stage(sessions[0], rows, warmup, plan.readout_every)
        stages = figures.by_stage(taken, spec, len(rows) - warmup, total)
        raw |= {f"stage {spec.stages[stage].name}": np.array(spans) for stage, spans in sorted(taken.items())}
    return Result(modes, stages, waiting, clock_ns, open_ms, raw)


def _answering(every: int) -> str:
    return "event and answer" if every == 1 else f"event, answer every {every}"


def _rates(pace: loops.Pace) -> dict[str, float]:
    return {"cpu_us": pace.cpu_ns / 1000, "events_per_s": 1e9 / pace.wall_ns}


def _amortised(pace: loops.Pace) -> dict[str, float]:
    return {"mean_us": pace.wall_ns / 1000, **_rates(pace)}
