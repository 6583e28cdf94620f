"""What the Triton kernels of `forgetting_attention` need of each chip: compiled here for chips that are not.

`python -m benchmarks.triton_report` compiles every kernel to machine code for every compute capability of the table in
`triton_blocks.py` and writes shared memory, registers and spilled bytes as JSON. Exit code 1 if a kernel does not
compile or asks for more shared memory than its chip has.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from runtime.errors import GateError, UserError, guard

CAPABILITIES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    """Compiles and writes.

    Args:
        arguments: Of the command line; `sys.argv` if `None`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="benchmarks.triton_report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--capability", type=int, nargs="+", default=CAPABILITIES, metavar="NN", help="90 for compute capability 9.0"
    )
    parser.add_argument("--width", type=int, nargs="+", default=(32, 64, 128), help="channels of a head")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=RESULTS / "triton_forgetting_attention.json",
        help="the JSON file (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    return guard(lambda: run(options.capability, options.width, options.output))


def run(capabilities: list[int], widths: list[int], output: Path) -> None:
    """Compiles every kernel for every chip and width.

    Args:
        capabilities: 75 for compute capability 7.5, and so on.
        widths: Channels of a head.
        output: The JSON file.

    Raises:
        UserError: Without Triton, or for an unknown chip or width.
        GateError: If a kernel does not compile or fit.
    """
    try:
        import triton

        from neurocompile.ops.forgetting_attention.triton_blocks import SHARED_KIB, WIDEST
    except ModuleNotFoundError as error:
        raise UserError(f"triton_report needs Triton, and {error}; install it with: pip install triton") from error
    if unknown := set(capabilities) - set(SHARED_KIB):
        known = ", ".join(map(str, SHARED_KIB))
        raise UserError(f"triton_report knows no compute capability {min(unknown)}; there are: {known}")
    if not all(1 <= width <= WIDEST for width in widths):
        raise UserError(f"triton_report: the kernels take heads of 1 to {WIDEST} channels, not {max(widths)}")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for capability in capabilities:
            for width in widths:
                for operand in ("fp32", "fp16" if capability < 80 else "bf16"):
                    rows += _compile(capability, operand, width, SHARED_KIB[capability] * 1024)
    output.parent.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(json.dumps(row) for row in rows)
    output.write_text(f'{{"triton": {json.dumps(triton.__version__)}, "kernels": [\n{text}\n]}}\n')
    print(f"{len(rows)} kernels; written to {output}")
    if wrong := [row for row in rows if "reason" in row]:
        first = wrong[0]
        raise GateError(
            f"{len(wrong)} of {len(rows)} kernels do not compile or fit, the first {first['kernel']} for compute "
            f"capability {first['capability'] / 10}, {first['operand']}, width {first['width']}: {first['reason']}"
        )


def _compile(capability: int, operand: str, width: int, limit: int) -> list[dict[str, Any]]:
    """The rows of one chip, type and width, printed as they come."""
    from neurocompile.ops.forgetting_attention import triton_aot

    rows = []
    for name in triton_aot.FORWARD + triton_aot.BACKWARD:
        row: dict[str, Any] = {"kernel": name, "capability": capability, "operand": operand, "width": width}
        try:
            compiled = triton_aot.compile_kernel(name, capability, operand, width)
            row |= {"warps": compiled.warps, "shared": compiled.shared, "limit": limit}
            row |= triton_aot.resources(compiled, capability)
            if compiled.shared > limit:
                row["reason"] = f"{compiled.shared} bytes of shared memory, {limit} exist"
        except Exception as error:  # What a compiler refuses is a finding, and the rest is still compiled.
            row["reason"] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:200]
        rows.append(row)
        print("  ".join(f"{value}" for value in row.values()), flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
