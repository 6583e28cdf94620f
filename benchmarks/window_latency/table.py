"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

OURS = "cpu-fp32"
WORST = "cpu-fp32, nothing forgotten"


def markdown(report: Mapping[str, Any]) -> str:
    """Tables of time, memory, growth and of the share of the core's peak."""
    lengths, peak = report["lengths"], report["multiply_adds_per_second"]
    names = list(lengths[0]["rows"])
    counts = [length["events"] for length in lengths]
    head = ["", *(f"{count} events" for count in counts)]
    lines = [
        f"# One window of Event2Vec, shape `{report['preset']}`, batch one, one core",
        "",
        f"{report['machine']['cpu']}; torch {report['machine']['torch']}, {report['machine']['compiler']}; "
        f"{report['date']}; load average {report['load_average']['begin'][0]} to {report['load_average']['end'][0]}.",
        "",
        "Processor time of the thread from a complete window to its logits, fastest of "
        f"{report['rounds']} calls made in turns, every answer checked against the float64 network before. Made-up "
        "weights whose gates forget after 1 to 30 steps; in the row *nothing forgotten* no key may be left out.",
        "",
        "## Time (ms)",
        "",
        *_table(head, [[name, *(f"{1e3 * best(n['rows'][name]):.2f}" for n in lengths)] for name in names]),
        "",
        "## Times as long as `cpu-fp32`",
        "",
        *_table(head, [[name, *(f"{_ratio(n, name):.1f}" for n in lengths)] for name in names if name != OURS]),
        "",
        "## Memory (MiB)",
        "",
        "From before opening to the first answer, at most: weights, graphs and whatever is kept for later answers, and "
        "for compilers what they need to compile in this process.",
        "",
        *_table(head, [[name, *(_mib(n["rows"][name]["peak_bytes_opening"]) for n in lengths)] for name in names]),
        "",
        "During an answer after the first, at most, above what was kept:",
        "",
        *_table(head, [[name, *(_mib(n["rows"][name]["peak_bytes_answering"]) for n in lengths)] for name in names]),
        "",
        "The compiled library answers inside its session, which is allocated when it is opened:",
        "",
        *_table(head, [["session", *(_mib(n["rows"][OURS]["session_bytes"]) for n in lengths)]]),
    ]
    if len(lengths) > 1:
        lines += [
            "",
            "## Growth when the window doubles",
            "",
            *_table(
                ["", *(f"{a} to {b}" for a, b in pairwise(counts))],
                [
                    *([f"time, {name}", *_growth([best(n["rows"][name]) for n in lengths])] for name in names),
                    ["memory, session", *_growth([n["rows"][OURS]["session_bytes"] for n in lengths])],
                ],
            ),
        ]
    return "\n".join([*lines, "", *_floor(lengths, peak, head), ""])


def best(row: Mapping[str, Any]) -> float:
    """Seconds of the fastest call."""
    return float(min(row["seconds"]))


def _floor(lengths: Sequence[Mapping[str, Any]], peak: float, head: list[str]) -> list[str]:
    work = [n["multiply_adds"] for n in lengths]
    times = [best(n["rows"][WORST]) for n in lengths]
    return [
        "## Multiply-adds",
        "",
        f"This core reaches {peak / 1e9:.1f} G multiply-adds/s out of registers, measured in the same run. The floor "
        "is all multiply-adds of products and of pairs that look back at that rate; exponentials count for nothing.",
        "",
        *_table(
            head,
            [
                ["multiply-adds (G)", *(f"{w / 1e9:.3f}" for w in work)],
                ["floor (ms)", *(f"{1e3 * w / peak:.2f}" for w in work)],
                [
                    f"{WORST}: G multiply-adds/s",
                    *(f"{w / t / 1e9:.1f}" for w, t in zip(work, times, strict=True)),
                ],
                ["share of the peak", *(f"{w / t / peak:.0%}" for w, t in zip(work, times, strict=True))],
            ],
        ),
    ]


def _ratio(length: Mapping[str, Any], name: str) -> float:
    return best(length["rows"][name]) / best(length["rows"][OURS])


def _growth(values: list[float]) -> list[str]:
    return [f"{b / a:.2f}" for a, b in pairwise(values)]


def _mib(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.2f}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
