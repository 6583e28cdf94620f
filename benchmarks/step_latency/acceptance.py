"""What was promised, and what this run found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMPILERS = ("torch.compile", "AOTInductor", "OpenVINO", "XLA (jax.jit)", "IREE", "TVM")


def acceptance(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every line that can be judged from the rows there are.

    Returns:
        Per line: what it says, the bound, what was found, and whether it holds.
    """
    rows = {row["name"]: row for row in report["rows"]}
    ours = rows.get("cpu-fp32")
    if ours is None:
        return []
    lines = [_line("cpu-fp32, events a second, one call each, in C", ours["events_per_second"], 500_000)]
    if "JAX online loop" in rows:
        lines.append(_ratio("cpu-fp32 over the published online loop in JAX", ours, rows["JAX online loop"], 10))
    if "onnxruntime io-binding" in rows:
        lines.append(_ratio("cpu-fp32 over onnxruntime on the same schedule", ours, rows["onnxruntime io-binding"], 4))
    others = [rows[name] for name in COMPILERS if name in rows]
    if others:
        best = max(others, key=lambda row: row["events_per_second"])
        lines.append(_ratio(f"cpu-fp32 over the best other compiler ({best['name']})", ours, best, 3))
        free = {**best, "events_per_second": 1e9 / max(best["processor_ns"] - report["python_schedule_ns"], 1)}
        lines.append(_ratio(f"the same, {best['name']} freed of the schedule in Python", ours, free, 3))
    lines.append(_line("cpu-fp32, ordinary event over its floor", ours["ordinary_over_floor"], 2, most=True))
    lines.append(_line("cpu-fp32, mean over its floor", ours["over_floor"], 3, most=True))
    for name in ("cpu-bf16", "cpu-int8"):
        if name in rows:
            lines.append(_ratio(f"{name} over cpu-fp32", rows[name], ours, 1))
    return lines


def _ratio(what: str, ours: Mapping[str, Any], peer: Mapping[str, Any], least: float) -> dict[str, Any]:
    return _line(what, ours["events_per_second"] / peer["events_per_second"], least)


def _line(what: str, found: float, bound: float, *, most: bool = False) -> dict[str, Any]:
    return {
        "what": what,
        "bound": bound,
        "at_most": most,
        "found": found,
        "met": found <= bound if most else found >= bound,
    }
