"""Everything that needs a CUDA device, in one run of minutes: are the Triton kernels right, and how fast are they?

`python -m benchmarks.gpu_check` (or `make gpu-check`) compares every kernel with a float64 reference, then times the
ops that passed beside their peers, prints a table and writes a JSON file. Exit code 0 if no comparison failed, 1 if one
did, 2 without a CUDA device. What this machine lacks the tools for is skipped and listed as such.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from benchmarks.gpu_checks import OPS, Skipped
from runtime.errors import GateError, UserError, guard

BUDGET_SECONDS = 420.0
"""After this, what has not begun is left out and listed as such."""

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    """Runs checks and timings.

    Args:
        arguments: Of the command line; `sys.argv` if `None`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ops", nargs="*", metavar="OP", help=f"ops to check, default all: {', '.join(OPS)}")
    parser.add_argument(
        "-o", "--output", type=Path, help="folder of the JSON file (default: $OUT or benchmarks/results)"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.ops) - set(OPS):
        parser.error(f"unknown op {', '.join(sorted(unknown))}; there are: {', '.join(OPS)}")
    folder = options.output or Path(os.environ.get("OUT") or RESULTS)
    return guard(lambda: run(options.ops or list(OPS), folder))


def run(ops: list[str], folder: Path) -> None:
    """Checks and times `ops` on the current CUDA device.

    Args:
        ops: Names of modules in `benchmarks.gpu_checks`.
        folder: Where the JSON file goes.

    Raises:
        UserError: Without a CUDA device.
        GateError: If a comparison failed.
    """
    if not torch.cuda.is_available():
        raise UserError("gpu_check needs a CUDA device, and torch finds none on this machine")
    # Peers and references must not round to a shorter type behind our back.
    torch.backends.cuda.matmul.allow_tf32 = False
    begin = time.perf_counter()
    report: dict[str, Any] = {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), **_machine()}
    report["copy_gb_per_s"] = round(_copy_bandwidth(), 1)
    print(f"{report['chip']}, torch {report['torch']}, triton {report['triton']}, copy {report['copy_gb_per_s']} GB/s")
    report["ops"] = {}
    for name in ops:
        module = import_module(f"benchmarks.gpu_checks.{name}")
        checks = run_checks(name, module, begin + BUDGET_SECONDS)
        # What was not compared is not timed either.
        right = all(check["passed"] for check in checks)
        timings = run_timings(module, begin + BUDGET_SECONDS, report["copy_gb_per_s"], milliseconds) if right else []
        report["ops"][name] = {"checks": checks, "timings": timings}
    report["seconds"] = round(time.perf_counter() - begin, 1)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"gpu_check_{report['date'][:10]}_{report['chip'].replace(' ', '_').lower()}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{report['seconds']} s; written to {path}")
    if wrong := [name for name, result in report["ops"].items() if any(map(_failed, result["checks"]))]:
        raise GateError(f"{', '.join(wrong)} failed comparisons with the float64 reference; see {path}")


def run_checks(name: str, module: ModuleType, deadline: float) -> list[dict[str, Any]]:
    """Runs an op's comparisons and prints those that fail or are skipped.

    Args:
        name: The op.
        module: Its module in `benchmarks.gpu_checks`.
        deadline: By `time.perf_counter`; what comes later counts as failed.

    Returns:
        One row per comparison; one that is neither `passed` nor `skipped` failed.
    """
    rows: list[dict[str, Any]] = []
    for check in module.checks():
        row: dict[str, Any] = {
            "name": check.name,
            "bound": check.bound,
            "error": None,
            "passed": False,
            "skipped": False,
        }
        if time.perf_counter() > deadline:
            row["reason"] = "out of time"
        else:
            try:
                row["error"] = check.run()
                row["passed"] = row["error"] <= check.bound
            except Skipped as lack:
                row |= {"skipped": True, "reason": str(lack)}
            except Exception as error:  # A kernel that crashes is a finding, and the rest still runs.
                row["reason"] = _line(error)
        if not row["passed"]:
            verdict = "skipped" if row["skipped"] else "FAILED"
            print(f"  {verdict} {name}: {check.name}: {row.get('reason') or format(row['error'], '.1e')}")
        rows.append(row)
    passed = [row for row in rows if row["passed"]]
    worst = max((row["error"] / row["bound"] for row in passed), default=0.0)
    skipped = f", {count} skipped" if (count := sum(row["skipped"] for row in rows)) else ""
    closest = f", the closest at {worst:.0%} of its bound" if passed else ""
    print(f"{name}: {len(passed)} of {len(rows)} comparisons passed{skipped}{closest}")
    return rows


def _failed(row: dict[str, Any]) -> bool:
    return not (row["passed"] or row["skipped"])


def run_timings(
    module: ModuleType, deadline: float, bandwidth: float, clock: Callable[[Callable[[], object]], float]
) -> list[dict[str, Any]]:
    """Times an op and its peers and prints one line each.

    Args:
        module: The op's module in `benchmarks.gpu_checks`.
        deadline: By `time.perf_counter`; what comes later is left out.
        bandwidth: What a copy reaches, in GB/s.
        clock: Returns a call's time in ms.

    Returns:
        One row per measurement.
    """
    rows: list[dict[str, Any]] = []
    problem = None
    for timing in module.timings():
        row: dict[str, Any] = {"problem": timing.problem, "contender": timing.contender, "ms": None}
        try:
            if time.perf_counter() > deadline:
                raise TimeoutError("out of time")
            with torch.no_grad():
                row["ms"] = clock(timing.prepare())
            row["gb_per_s"] = timing.bytes / row["ms"] / 1e6
            text = f"{row['ms']:9.3f} ms {row['gb_per_s']:7.0f} GB/s {row['gb_per_s'] / bandwidth:5.0%} of a copy"
        except Exception as error:  # Peers may be absent or not support the case; that is part of the table.
            row["reason"] = _line(error)
            text = f"not measured: {row['reason']}"
        if timing.problem != problem:
            problem = timing.problem
            print(f"  {problem}")
        print(f"    {timing.contender:36s} {text}")
        rows.append(row)
    return rows


def milliseconds(call: Callable[[], object]) -> float:
    """The median time of a call on the device, warm, in ms."""
    from triton.testing import do_bench

    return do_bench(call, warmup=50, rep=300, return_mode="median")


def _copy_bandwidth() -> float:
    """Bytes read and written by a large copy, in GB/s."""
    source = torch.rand(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / milliseconds(lambda: target.copy_(source)) / 1e6


def _machine() -> dict[str, Any]:
    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    properties = torch.cuda.get_device_properties(0)
    return {
        "chip": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "triton": installed("triton"),
        "flash-linear-attention": installed("flash-linear-attention"),
        "python": platform.python_version(),
    }


def _line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"[:160]


if __name__ == "__main__":
    sys.exit(main())
