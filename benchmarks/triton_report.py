"""What the Triton kernels of the ops need of each chip: compiled here for chips that are not.

`python -m benchmarks.triton_report` compiles every kernel of every op to machine code for every compute capability of
the table in `neurocompile/ops/machine_code.py`, those of training and those that plugins of TensorRT embed, and writes
shared memory, registers and spilled bytes as JSON, one file per op. Exit code 1 if a kernel does not compile, or asks
for more shared memory than its chip, or a plugin, has.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from neurocompile.ops.plugin_plan import PLANNED, planner
from runtime.errors import GateError, UserError, guard

CAPABILITIES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
WIDTHS = {"diagonal_scan": (32, 160), "forgetting_attention": (32, 64, 128), "gated_linear_attention": (32, 64, 128)}
WIDTHS |= {"lif": (1024, 262144)}
"""Columns, channels of a head, or neurons that are compiled for by default."""

WIDEST = {"forgetting_attention": 128, "gated_linear_attention": 128}
RESULTS = Path(__file__).parent / "results"
LONG = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def main(arguments: list[str] | None = None) -> int:
    """Compiles and writes.

    Args:
        arguments: Of the command line; `sys.argv` if `None`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="benchmarks.triton_report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ops", nargs="*", metavar="OP", help=f"default all: {', '.join(WIDTHS)}")
    parser.add_argument(
        "--capability", type=int, nargs="+", default=CAPABILITIES, metavar="NN", help="90 for compute capability 9.0"
    )
    parser.add_argument("--width", type=int, nargs="+", help="columns, channels of a head, or neurons")
    parser.add_argument("--plugins-only", action="store_true", help="leave out the kernels of training")
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS, help="folder of the JSON files (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.ops) - set(WIDTHS):
        parser.error(f"unknown op {', '.join(sorted(unknown))}; there are: {', '.join(WIDTHS)}")
    return guard(
        lambda: run(
            options.ops or list(WIDTHS), options.capability, options.width, options.output, options.plugins_only
        )
    )


def run(
    ops: list[str], capabilities: Iterable[int], widths: list[int] | None, output: Path, plugins_only: bool = False
) -> None:
    """Compiles every kernel for every chip and width.

    Args:
        ops: Keys of `WIDTHS`.
        capabilities: 75 for compute capability 7.5, and so on.
        widths: Columns, channels of a head, or neurons; `WIDTHS` if `None`.
        output: Folder of the JSON files.
        plugins_only: Whether to leave out the kernels of training; a file's rows about them stay.

    Raises:
        UserError: Without Triton, or for an unknown chip or width.
        GateError: If a kernel does not compile or fit.
    """
    try:
        import triton

        from neurocompile.ops.machine_code import SHARED_KIB
    except ModuleNotFoundError as error:
        raise UserError(f"triton_report needs Triton, and {error}; install it with: pip install triton") from error
    capabilities = list(capabilities)
    if unknown := set(capabilities) - set(SHARED_KIB):
        known = ", ".join(map(str, SHARED_KIB))
        raise UserError(f"triton_report knows no compute capability {min(unknown)}; there are: {known}")
    for op in ops:
        most = WIDEST.get(op, 2**24)
        if not all(1 <= width <= most for width in widths or ()):
            raise UserError(f"triton_report: the kernels of {op} take widths of 1 to {most}, not {widths}")
    wrong: list[dict[str, Any]] = []
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for op in ops:
            path = output / f"triton_{op}.json"
            problems = [
                (capability, width, operand)
                for capability in capabilities
                for width in widths or WIDTHS[op]
                for operand in ("fp32", "fp16" if capability < 80 else "bf16")
            ]
            kept = json.loads(path.read_text())["kernels"] if plugins_only and path.exists() else []
            rows = {"kernels": kept, "plugins": list(_rows(_plugins, op, problems))}
            if not plugins_only:
                rows["kernels"] = list(_rows(_kernels, op, problems))
            path.write_text(_as_json({"triton": triton.__version__}, rows))
            counted = rows["plugins"] + ([] if plugins_only else rows["kernels"])
            print(f"{op}: {len(counted)} kernels; written to {path}")
            wrong += [row for row in counted if "reason" in row]
    if wrong:
        first = wrong[0]
        raise GateError(
            f"{len(wrong)} kernels do not compile or fit, the first {first['kernel']} for compute "
            f"capability {first['capability'] / 10}, {first['operand']}, width {first['width']}: {first['reason']}"
        )


Problem = tuple[int, int, str]


def _rows(
    compiler: Callable[[str, Problem], Iterator[dict[str, Any]]], op: str, problems: list[Problem]
) -> Iterator[dict[str, Any]]:
    """The rows of all problems, printed as they come."""
    for problem in problems:
        for row in compiler(op, problem):
            print("  ".join(f"{value}" for value in row.values()), flush=True)
            yield row


def _kernels(op: str, problem: Problem) -> Iterator[dict[str, Any]]:
    """What training launches."""
    from neurocompile.ops.machine_code import SHARED_KIB

    module = import_module(f"neurocompile.ops.{op}.triton_aot")
    capability, width, operand = problem
    limit = SHARED_KIB[capability] * 1024
    for name in module.FORWARD + module.BACKWARD:
        row: dict[str, Any] = {"kernel": name, "capability": capability, "operand": operand, "width": width}
        try:
            compiled = module.compile_kernel(name, capability, operand, width)
            row |= {"warps": compiled.warps, "shared": compiled.shared, "limit": limit}
            row |= module.resources(compiled, capability)
            if compiled.shared > limit:
                row["reason"] = f"{compiled.shared} bytes of shared memory, {limit} exist"
        except Exception as error:  # What a compiler refuses is a finding, and the rest is still compiled.
            row["reason"] = _line(error)
        yield row


def _plugins(op: str, problem: Problem) -> Iterator[dict[str, Any]]:
    """What a plugin embeds: the same kernels with a plugin's parameters."""
    from neurocompile.targets.trt.plugins.compiled import SHARED_LIMIT, compile_plan

    capability, width, operand = problem
    asked: dict[str, Any] = {"capability": capability, "operand": operand, "width": width}
    [name] = [name for name, folder in PLANNED.items() if folder == op]
    try:
        image, reports = compile_plan(planner(name)(shapes_of(op, width), LONG[operand], capability), capability)
    except Exception as error:  # As above.
        yield {"kernel": f"plugin {name}", **asked, "reason": _line(error)}
        return
    for report in reports:
        yield {
            "kernel": report["kernel"],
            **asked,
            "warps": report["warps"],
            "shared": report["shared"],
            "limit": SHARED_LIMIT,
            "registers": report["registers"],
            "spills": report["spills"],
            "ptx": image.ptx_version,
        }


def shapes_of(op: str, width: int) -> list[tuple[int, ...]]:
    """Shapes of an op's inputs: one sequence, two heads, one key head.

    Args:
        op: A key of `WIDTHS`.
        width: Columns, channels of a head, or neurons.
    """
    steps = 1024
    if op == "diagonal_scan":
        return [(1, steps, width)] * 4 + [(1, width)] * 2
    if op == "lif":
        return [(steps, width), (1,), (width,)]
    shapes = [(1, steps, 2, width), *[(1, steps, 1, width)] * 2, (1, steps, 2)]
    return [*shapes, (1, 2, width, width)] if op == "gated_linear_attention" else shapes


def _as_json(head: dict[str, Any], groups: dict[str, list[dict[str, Any]]]) -> str:
    lists = (f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]" for name, rows in groups.items())
    return json.dumps(head)[:-1] + ", " + ", ".join(lists) + "}\n"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:200]


if __name__ == "__main__":
    sys.exit(main())
