"""The floor of a compiled program: what its arithmetic and its memory traffic cost at least on this core.

A stage's floor is max(multiply-adds / peak, bytes / bandwidth), with peak and bandwidths of this core measured in the
same run. What a stage touches lies in two places: weights, constants and states come back every time it fires, so they
are read at the bandwidth of a working set as large as everything touched between two of its firings; table rows differ
from event to event, so they are read at the bandwidth of all rows that the recording touches. Exponentials, sines and
cosines count for nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from neurocompile.lowering import LoopProgram
from neurocompile.lowering.loops import Apply, Let, MatVec, Nest, accesses
from neurocompile.targets.cpu.placement.formats import Format
from neurocompile.targets.cpu.placement.layout import ITEM_BYTES, row_stride, table_storage
from neurocompile.targets.cpu.toolchains.compiler import find_compiler
from runtime.program import ProgramSpec
from runtime.schedule import firings

SOURCE = Path(__file__).with_suffix(".c")
SMALLEST = 16 << 10
FUNCTIONS = ("exp", "sin", "cos", "tanh", "sigmoid", "erf", "log")


@dataclass(frozen=True)
class Work:
    """What one firing of a stage cannot do without.

    Attributes:
        multiply_adds: Of its matrix-vector products and of its elementwise loops (one per multiplication).
        functions: Exponentials, sines and the like; the floor leaves them out.
        fixed: Bytes of weights, constants and states that it reads, the same every time.
        rows: Bytes of table rows that it reads, others every time.
        every: Events between two firings, on average.
        fixed_set: Working set in bytes that `fixed` is read from.
        row_set: The same for `rows`.
    """

    multiply_adds: int
    functions: int
    fixed: int
    rows: int
    every: float
    fixed_set: int
    row_set: int

    @property
    def bytes(self) -> int:
        """All that one firing reads."""
        return self.fixed + self.rows


def work(spec: ProgramSpec, loops: LoopProgram, form: Format, distinct: int) -> dict[str, Work]:
    """The work of every stage that events fire.

    Args:
        spec: The tables.
        loops: The loops.
        form: How matrices and tables are kept.
        distinct: Different table rows that the recording touches.
    """
    table = firings(spec)
    count = {stage.name: sum(n in fired for fired in table) for n, stage in enumerate(spec.stages)}
    count = {name: times for name, times in count.items() if times}
    fixed = {name: _fixed(loops, name, form) for name in count}
    rows = {name: _rows(loops, name, form) for name in count}
    result = {}
    for name, times in count.items():
        often = [other for other in count if count[other] >= times]
        fresh = sum(rows[other] * min(count[other] // times, distinct) for other in often)
        between = sum(fixed[other] for other in often) + fresh
        sums = [_arithmetic(loops, name, kind) for kind in (("mul", "div"), FUNCTIONS)]
        result[name] = Work(
            loops.multiply_adds[name] + sums[0],
            sums[1],
            fixed[name],
            rows[name],
            len(table) / times,
            between,
            rows[name] * distinct,
        )
    return result


def _fixed(loops: LoopProgram, stage: str, form: Format) -> int:
    total, once = 0, {}
    for statement in loops.stages[stage].statements:
        if isinstance(statement, MatVec):
            total += form.steps([length for _, length in statement.pieces]) * form.step_bytes * statement.outputs
        for access, shape, written in accesses(statement):
            if access.buffer.kind in ("weight", "state", "value") and not access.row and not written:
                low, high = access.span(shape)
                once[access.buffer.name, access.offset] = (high - low + 1) * np.dtype(access.buffer.dtype).itemsize
    return total + sum(once.values())


def _rows(loops: LoopProgram, stage: str, form: Format) -> int:
    rows = {}
    for statement in loops.stages[stage].statements:
        for access, _, _ in accesses(statement):
            if access.row:
                storage = table_storage(access.rows * access.row_stride, form)
                rows[access.buffer.name] = row_stride(access.row_stride, storage) * ITEM_BYTES[storage]
    return sum(rows.values())


def _arithmetic(loops: LoopProgram, stage: str, operations: tuple[str, ...]) -> int:
    """How often an elementwise loop of the stage applies one of `operations`."""
    return sum(
        prod(nest.shape)
        for nest in loops.stages[stage].statements
        if isinstance(nest, Nest)
        for line in nest.body
        if isinstance(line, Let) and isinstance(line.value, Apply) and line.value.operation in operations
    )


@dataclass(frozen=True)
class Core:
    """What this core can do at best.

    Attributes:
        peak: Multiply-adds a second out of registers, float32.
        bandwidth: Bytes a second by working set in bytes.
    """

    peak: float
    bandwidth: Mapping[int, float]

    def floor_ns(self, stage: Work, *, warm: bool = False) -> float:
        """Nanoseconds that one firing costs at least.

        Args:
            stage: Its work.
            warm: As if its table rows lay in the first-level cache.
        """
        row_set = SMALLEST if warm else max(stage.row_set, SMALLEST)
        memory = stage.fixed / self.bandwidth[max(stage.fixed_set, SMALLEST)]
        memory += stage.rows / self.bandwidth[row_set] if stage.rows else 0
        return 1e9 * max(stage.multiply_adds / self.peak, memory)

    def best(self, other: Core) -> Core:
        """Of two measurements of the same core, the better of each figure: what disturbs one only ever slows it."""
        rates = {size: max(rate, other.bandwidth[size]) for size, rate in self.bandwidth.items()}
        return Core(max(self.peak, other.peak), rates)

    def mean_ns(self, works: Mapping[str, Work]) -> float:
        """Nanoseconds that an event costs at least on average."""
        return sum(self.floor_ns(stage) / stage.every for stage in works.values())


def measure(works: Sequence[Mapping[str, Work]], folder: Path) -> Core:
    """Peak and bandwidths of this core.

    Args:
        works: The work of all programs, whose working sets are wanted.
        folder: Where the compiled measurement goes.
    """
    program = folder / "floor"
    find_compiler().run("-O3", "-std=c17", "-march=native", "-ffp-contract=fast", str(SOURCE), "-o", str(program))
    stages = [stage for table in works for stage in table.values()]
    sets = {size for stage in stages for size in (stage.fixed_set, stage.row_set)}
    sizes = sorted({max(size, SMALLEST) for size in sets} | {SMALLEST})
    done = subprocess.run([str(program), *map(str, sizes)], capture_output=True, text=True, check=True)
    peak, *rates = map(float, done.stdout.split())
    return Core(peak, dict(zip(sizes, rates, strict=True)))
