"""The floor of a compiled program: what its arithmetic and its memory traffic cost at least on this core."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from neurocompile.lowering import LoopProgram
from neurocompile.lowering.loops import MatVec, accesses
from neurocompile.targets.cpu.compiler import find_compiler
from neurocompile.targets.cpu.formats import Format
from neurocompile.targets.cpu.layout import ITEM_BYTES, row_stride
from runtime.program import ProgramSpec
from runtime.schedule import firings

SOURCE = Path(__file__).with_suffix(".c")
SMALLEST = 16 << 10


@dataclass(frozen=True)
class Work:
    """What one firing of a stage cannot do without.

    Attributes:
        multiply_adds: Of its matrix-vector products.
        bytes: Weights and table rows that it reads.
        every: Events between two firings, on average.
        between: Bytes that the program reads between two firings: the working set that the weights are read from.
    """

    multiply_adds: int
    bytes: int
    every: float
    between: int


def work(spec: ProgramSpec, loops: LoopProgram, form: Format) -> dict[str, Work]:
    """The work of every stage that events fire."""
    table = firings(spec)
    counts = {stage.name: sum(n in fired for fired in table) for n, stage in enumerate(spec.stages)}
    size = {name: _bytes(loops, name, form) for name in counts}
    result = {}
    for name, count in counts.items():
        if count:
            every = len(table) / count
            between = sum(size[other] for other in counts if counts[other] >= count)
            result[name] = Work(loops.multiply_adds[name], size[name], every, between)
    return result


def _bytes(loops: LoopProgram, stage: str, form: Format) -> int:
    total, rows = 0, {}
    for statement in loops.stages[stage].statements:
        if isinstance(statement, MatVec):
            total += form.steps([length for _, length in statement.pieces]) * form.step_bytes * statement.outputs
        for access, _, _ in accesses(statement):
            if access.row:
                rows[access.buffer.name] = row_stride(access.row_stride, form.table) * ITEM_BYTES[form.table]
    return total + sum(rows.values())


def measure(sizes: list[int], folder: Path) -> tuple[float, dict[int, float]]:
    """(multiply-adds per second, bytes per second by working set) of this core."""
    program = folder / "floor"
    find_compiler().run("-O3", "-std=c17", "-march=native", "-ffp-contract=fast", str(SOURCE), "-o", str(program))
    sizes = sorted({max(size, SMALLEST) for size in sizes})
    done = subprocess.run([str(program), *map(str, sizes)], capture_output=True, text=True, check=True)
    peak, *rates = map(float, done.stdout.split())
    return peak, dict(zip(sizes, rates, strict=True))


def floor_ns(works: dict[str, Work], peak: float, rates: dict[int, float]) -> float:
    """Nanoseconds an event costs at least on average: per stage the larger of arithmetic and memory, by its rate."""
    total = 0.0
    for stage in works.values():
        memory = stage.bytes / rates[max(stage.between, SMALLEST)]
        total += max(stage.multiply_adds / peak, memory) / stage.every
    return 1e9 * total
