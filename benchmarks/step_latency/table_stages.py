"""The part of the report that says where the time goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def where(report: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[str]:
    """Stages and kinds of events of one of our rows.

    Args:
        report: The whole report.
        row: The row.
    """
    yield f"\n## Where the time goes: {row['name']}\n"
    head = [
        "stage",
        "every",
        "ns",
        "cycles",
        "multiply-adds",
        "exp, sin, ..",
        "bytes",
        "floor ns",
        "over floor",
        "ns/event",
    ]
    yield from table(head, (_stage(name, stage) for name, stage in row["stages"].items()))
    total = sum(stage["per_event_ns"] for stage in row["stages"].values())
    yield (
        f"\nStages add up to {total:.0f} ns an event; the whole event takes {row['processor_ns']:.0f} ns with checks, "
        f"token and schedule. Its floor is {row['floor_ns']:.0f} ns: {row['over_floor']:.2f} times. Every firing and "
        "every block of like events is the fastest of all passes. Cycles are of the constant counter "
        f"({report['clock_ticks_per_second'] / 1e9:.2f} GHz); bytes are weights, constants, states and table rows.\n"
    )
    kinds = sorted(row["kinds"].items(), key=lambda kind: -kind[1]["events"])
    head = ["an event that fires", "events", "ns", "floor ns", "over floor", "floor ns, rows in L1"]
    yield from table(head, (_kind(name, kind) for name, kind in kinds if name))
    if row.get("gather_ns"):
        yield (
            f"\nThe rows of `{row['ordinary']}` by themselves, fetched one event ahead in the same order and added "
            f"to a vector, take {row['gather_ns']:.0f} ns an event on this core; the floor counts a sequential read."
        )


def _stage(name: str, stage: Mapping[str, Any]) -> tuple[str, ...]:
    over = stage["ns"] / stage["floor_ns"] if stage["floor_ns"] else 0
    counts = (f"{stage[key]:,}" for key in ("multiply_adds", "functions"))
    size = f"{stage['fixed'] + stage['rows']:,}"
    times = (f"{stage['floor_ns']:.0f}", f"{over:.1f}", f"{stage['per_event_ns']:.0f}")
    return name, f"{stage['every']:.0f}", f"{stage['ns']:.0f}", f"{stage['ticks']:.0f}", *counts, size, *times


def _kind(name: str, kind: Mapping[str, Any]) -> tuple[str, ...]:
    floor = kind["floor_ns"]
    ratio = f"{kind['ns'] / floor:.2f}" if floor else "-"
    return name, f"{kind['events']:,}", f"{kind['ns']:.0f}", f"{floor:.0f}", ratio, f"{kind['floor_warm_ns']:.0f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
