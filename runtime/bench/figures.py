"""From raw nanoseconds to the figures of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtime.bench.loops import Timed
from runtime.program import ProgramSpec
from runtime.schedule import firings

QUANTILES = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p99.9_us": 0.999}
BEYOND = 10


def latency(taken: np.ndarray) -> dict[str, Any]:
    """Percentiles, largest and mean in microseconds.

    A percentile is the smallest sample that no more than its share of the samples exceeds. It is `None` where fewer
    than `BEYOND` samples lie beyond it, because it would be a figure about a handful of events.
    """
    count = len(taken)
    if not count:
        return {"events": 0, **dict.fromkeys(QUANTILES), "max_us": None, "mean_us": None}
    ordered = np.sort(taken) / 1000
    figures: dict[str, Any] = {"events": count}
    for name, share in QUANTILES.items():
        enough = share == 0.5 or count * (1 - share) >= BEYOND * (1 - 1e-9)
        figures[name] = float(ordered[min(count - 1, int(np.ceil(share * count)) - 1)]) if enough else None
    return {**figures, "max_us": float(ordered[-1]), "mean_us": float(ordered.mean())}


def by_depth(timed: Timed, spec: ProgramSpec) -> list[dict[str, Any]]:
    """Latency of the events that fire the same stages, the most frequent kind first.

    A percentile over all events of a program of several rates mixes a cheap kind with dear ones; these do not mix.
    """
    table = firings(spec)
    kinds = {fired: number for number, fired in enumerate(dict.fromkeys(table))}
    of_item = np.array([kinds[fired] for fired in table])
    kind = np.where(timed.items < 0, -1, of_item[timed.items % len(table)])
    rows = []
    for fired, number in [*kinds.items(), ((), -1)]:
        taken = timed.taken[kind == number]
        if len(taken):
            figures = {"share_of_time": float(taken.sum() / timed.taken.sum()), **latency(taken)}
            rows.append({"fires": [spec.stages[stage].name for stage in fired], **figures})
    return sorted(rows, key=lambda row: -row["events"])


def by_stage(taken: Mapping[int, Sequence[int]], spec: ProgramSpec, events: int, total_ns: float) -> dict[str, Any]:
    """How often each stage fired and what share of the time it took.

    Args:
        taken: Stage number -> nanoseconds of every firing.
        spec: The program.
        events: Events of the pass.
        total_ns: Nanoseconds of the whole pass.
    """
    rows = []
    for stage, spans in sorted(taken.items()):
        values = np.array(spans)
        figures = {"fired": len(values), "events_per_firing": events / len(values)}
        spent = {"share_of_time": float(values.sum() / total_ns), **latency(values)}
        del spent["events"]
        rows.append({"stage": spec.stages[stage].name, **figures, **spent})
    inside = sum(sum(spans) for spans in taken.values())
    return {"stages": rows, "outside_stages_us_per_event": (total_ns - inside) / events / 1000,
            "outside_stages_share": 1 - inside / total_ns}  # fmt: skip


def queue(timed: Timed, due: np.ndarray) -> dict[str, Any]:
    """What happened to events before their turn in an open loop."""
    assert timed.waited is not None
    span = float(due[-1] - due[0]) or 1.0
    finish = timed.taken + due
    return {
        "offered_events_per_s": (len(due) - 1) * 1e9 / span,
        "waited": latency(timed.waited),
        "largest_backlog_events": int(np.max(np.searchsorted(due, finish, side="right") - np.arange(1, len(due) + 1))),
        "backlog_at_end_us": float(timed.taken[-1] / 1000),
    }
