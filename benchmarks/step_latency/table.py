"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.step_latency.table_stages import table, where

TIMES = ("p50_ns", "p90_ns", "p99_ns", "p99.9_ns", "max_ns")


def markdown(report: Mapping[str, Any]) -> str:
    """The whole report.

    Args:
        report: What `command` measured.
    """
    return "\n".join(_parts(report)) + "\n"


def _parts(report: Mapping[str, Any]) -> Iterator[str]:
    machine, load = report["machine"], report["load_average"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    yield f"# Latency of single events: {report['model']}\n"
    yield f"{report['date']}, {machine['cpu']}, core {machine['affinity']}."
    yield f"Load average {load['begin']} at the beginning, {load['end']} at the end."
    yield f"{report['compiler']}, `{' '.join(report['flags'])}`; {versions}.\n"
    yield (
        f"{report['events']} events ({report['sequence']}), strictly one per call, carried state. Peers on our "
        f"schedule take the first {report['peer_events']}. {report['rounds']} passes in turns; events/s are from "
        "the pass of least processor time (all threads), percentiles from the pass of least sum, on the wall, without "
        "the cost of reading the clock. Rows `C` are timed in C through the interface, where that is "
        f"{report['clock_ns']:.0f} ns; the others in Python, whose schedule takes {report['python_schedule_ns']:.0f} "
        f"ns an event. Error: largest deviation from the float64 reference after {report['gate_events']} events, "
        "checked before the clock starts.\n"
    )
    yield from _contestants(report)
    if report["acceptance"]:
        yield "\n## Asked for\n"
        yield from table(("line", "asked", "found", ""), map(_acceptance, report["acceptance"]))
    for row in report["rows"]:
        if "stages" in row:
            yield from where(report, row)
    yield from _sessions(report)


def _contestants(report: Mapping[str, Any]) -> Iterator[str]:
    head = ("", "timed in", "events/s", "us/event", "wall", *(key.removesuffix("_ns") for key in TIMES), "error")
    missing = [(name, f"not timed: {why}", *[""] * (len(head) - 2)) for name, why in report["absent"].items()]
    yield from table(head, [*map(_contestant, report["rows"]), *missing])
    if any(row.get("events_per_call", 1) > 1 for row in report["rows"]):
        yield (
            "\nPercentiles of the online loop are of calls of 256 events: an event waits for up to 255 more, and gets "
            "another answer, because every chunk begins from zero state."
        )
    yield (
        "\nAll other rows run the same folded graphs and fire the same stages, except `dense`: one graph that runs "
        "every stage at every event and masks what is not due. TVM is not tuned."
    )
    for row in report["rows"]:
        if row.get("delay_items"):
            lacks = f"what the last {row['delay_items']} events would have brought"
            yield f"\n`{row['name']}`: an answer may lack {lacks}."
    bulk = [row for row in report["rows"] if "bulk_events_per_second" in row]
    yield "\n## Other ways to push\n"
    rows = ((r["name"], f"{r['bulk_events_per_second']:,.0f}", f"{r['python_events_per_second']:,.0f}") for r in bulk)
    yield from table(("events/s", "in bulk, from C", "one call each, from Python"), rows)


def _contestant(row: Mapping[str, Any]) -> tuple[str, ...]:
    times = [f"{row[key] / 1000:.2f}" for key in ("processor_ns", "wall_ns", *TIMES)]
    if sum(row["histogram"]["count"]) == 1:  # all events in one call: no distribution
        times[2:] = "-" * len(TIMES)
    return (row["name"], row["language"], f"{row['events_per_second']:,.0f}", *times, f"{row['error']:.0e}")


def _acceptance(line: Mapping[str, Any]) -> tuple[str, ...]:
    def number(value: float) -> str:
        return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"

    asked = f"{'at most' if line['at_most'] else 'at least'} {line['bound']:,}"
    return line["what"], asked, number(line["found"]), "met" if line["met"] else "**missed**"


def _sessions(report: Mapping[str, Any]) -> Iterator[str]:
    yield "\n## Many sessions, long streams\n"
    names = list(report["sessions"])
    counts = [entry["sessions"] for entry in report["sessions"][names[0]]]
    rows = ((name, *(f"{entry['processor_ns']:.0f}" for entry in report["sessions"][name])) for name in names)
    yield from table(("ns/event, sessions taking turns", *map(str, counts)), rows)
    memory = report["session_memory"]
    allocated = memory["allocated_bytes"]
    seen = "" if allocated is None else f"; {memory['sessions']:,} more took {allocated:,.0f} each from the allocator"
    yield f"\nA further session takes {memory['session_bytes']:,.0f} bytes{seen}.\n"
    for name, stretches in report["by_length"].items():
        head = (f"{name}, up to event", *(f"{s['to_event']:,}" for s in stretches))
        yield from table(head, [("ns/event", *(f"{s['processor_ns']:.0f}" for s in stretches))])
