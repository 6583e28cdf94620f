"""The report as people read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.tables import table

COLUMNS = {"p50": "p50_us", "p90": "p90_us", "p99": "p99_us", "p99.9": "p99.9_us", "max": "max_us", "mean": "mean_us"}


def show(report: Mapping[str, Any]) -> str:
    """All of the report's figures in a page of text."""
    return "\n".join([_head(report), "", _modes(report), *_queue(report), *_stages(report), "", _notes(report)])


def _head(report: Mapping[str, Any]) -> str:
    machine, setting = report["machine"], report["setting"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    virtual = {True: "virtual machine", False: "bare metal"}.get(machine["virtual_machine"], "")
    load = f"load {machine['load_average'][0]}" if machine["load_average"] else ""
    cores = f"{machine['logical_cores']} cores, this process on {_cores(machine['affinity'])}"
    facts = [machine["cpu"], cores, f"governor {machine['governor']}", virtual, load]
    return "\n".join(
        [
            f"bundle    {report['name']}  {report['target']}",
            f"parity    {report['parity_at_export']} at export; verified here just now, {report['parity_here']}",
            f"input     {report['input']}",
            f"          {setting['events']} events counted after {setting['warmup']} of warm-up in every pass",
            f"setting   batch {setting['batch']}, threads {setting['threads']}, provider {setting['provider']}, "
            f"garbage collector {report['garbage_collector']}; a session opens in {report['open_ms']:.0f} ms",
            f"machine   {', '.join(fact for fact in facts if fact)}",
            f"          {machine['system']}, {versions}",
        ]
    )


def _modes(report: Mapping[str, Any]) -> str:
    rows = []
    for name, mode in report["modes"].items():
        cpu = _us(mode["cpu_us"]) if "cpu_us" in mode else ""
        rows.append((name, "", *_figures(mode), cpu, _rate(mode.get("events_per_s"))))
        for kind in mode.get("by_depth", []) if len(mode.get("by_depth", [])) > 1 else []:
            label = f"  {kind['fires'][-1]}" if kind["fires"] else "  (no item yet)"
            one_in = mode["events"] / kind["events"]
            rows.append(
                (label, f"1 in {one_in:.3g}", *_figures(kind), "", f"{100 * kind['share_of_time']:.1f} % of time")
            )
    return table(("latency per event [us], by deepest stage", "", *COLUMNS, "cpu", "events/s"), rows, left=2)


def _queue(report: Mapping[str, Any]) -> list[str]:
    queue = report["queue"]
    if not queue:
        return []
    waited = queue["waited"]
    return [
        "",
        f"open loop: {queue['offered_events_per_s']:,.0f} events/s offered; waited for their turn: p50 "
        f"{_us(waited['p50_us'])}, p99 {_us(waited['p99_us'])}, max {_us(waited['max_us'])} us; "
        f"largest backlog {queue['largest_backlog_events']} events, the last one "
        f"answered after {_us(queue['backlog_at_end_us'])} us",
    ]


def _stages(report: Mapping[str, Any]) -> list[str]:
    stages = report["stages"]
    if not stages:
        return []
    rows = [
        (row["stage"], f"1 in {row['events_per_firing']:.3g}", *_figures(row), f"{100 * row['share_of_time']:.1f} %")
        for row in stages["stages"]
    ]
    outside = [""] * (len(COLUMNS) - 1) + [_us(stages["outside_stages_us_per_event"])]
    rows.append(("front end, schedule, clocks", "1 in 1", *outside, f"{100 * stages['outside_stages_share']:.1f} %"))
    return ["", table(("time per firing [us], separate pass", "events", *COLUMNS, "of time"), rows, left=2)]


def _notes(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    lines = [
        f"one clock read takes {report['clock_read_ns']:.0f} ns and is part of every latency; "
        "cpu and events/s come from a pass without clocks;",
        "cpu: mean processor time per event, which leaves out waiting for a core on a busy machine;",
        "a dash stands where fewer than 10 samples lie beyond the percentile",
    ]
    queue, answering = report["queue"], list(report["modes"].values())[1]
    if queue and queue["offered_events_per_s"] > answering["events_per_s"]:
        lines.append("the open loop was offered more events than it can answer: its latencies grow with its length")
    if machine["load_average"] and machine["load_average"][0] > 0.3 * (machine["logical_cores"] or 1):
        lines.append(f"the machine was busy (load {machine['load_average'][0]}): the tails are its, not the model's")
    return "\n".join(lines)


def _figures(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_us(row[key]) if key in row else "" for key in COLUMNS.values())


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _cores(cores: list[int] | None) -> str:
    if cores is None:
        return "any"
    whole = len(cores) > 2 and cores == list(range(cores[0], cores[-1] + 1))
    return f"{cores[0]}-{cores[-1]}" if whole else ",".join(map(str, cores))
