"""C of jobs: stages whose work is cut into pieces, some of which are done at every item."""

from __future__ import annotations

from dataclasses import dataclass

from neurocompile.lowering.jobs import Job
from neurocompile.lowering.loops import LoopProgram, MatVec, Nest
from neurocompile.targets.cpu.code.nests import nest_code
from neurocompile.targets.cpu.code.products import Shape, product_inputs, store_sum, whole_sum, widths
from neurocompile.targets.cpu.placement.formats import Format
from neurocompile.targets.cpu.placement.layout import Weights, identifier, panels
from neurocompile.targets.cpu.placement.memory import TYPES, Memory
from neurocompile.targets.cpu.schedule.bulk import SlotMemory
from runtime.errors import InternalError

PIECE = 8192
"""Multiply-adds of one piece of a product: weights of 32 KB in float32."""

PER_LINE = 4
"""Lines of a nest's body that take about as long as one multiply-add per element."""


@dataclass(frozen=True)
class Piece:
    """Some of a job's work.

    Attributes:
        cost: In multiply-adds.
        lines: C.
    """

    cost: int
    lines: tuple[str, ...]


def job_fields(program: LoopProgram, jobs: tuple[Job, ...], shape: Shape, form: Format) -> list[str]:
    """Members of `nc_stream`: what jobs have captured, their locals, open sums, and how far they are."""
    lines, number = [], "int32_t" if form.name == "int8" else "float"
    for job in jobs:
        name = identifier(job.stage.name)
        stage = program.stages[job.stage.name]
        lines.append(f"    int32_t piece_{name}, items_{name};")
        lines.append(f"    _Alignas(64) {number} sum_{name}[{form.sums * shape.widest}];")
        for buffer in (*job.captures, *stage.locals):
            lines.append(f"    _Alignas(64) {TYPES[buffer.dtype]} {_field(name, buffer.name)}[{buffer.size}];")
    return lines


def _field(job: str, buffer: str) -> str:
    return f"j_{job}_{identifier(buffer)}"


def part_kernels(program: LoopProgram, jobs: tuple[Job, ...], shape: Shape, form: Format) -> list[str]:
    """Functions that go on with the sums of a panel."""
    stages = [program.stages[job.stage.name] for job in jobs]
    kind, number = ("vi", "int32_t") if form.name == "int8" else ("vf", "float")
    lines = []
    for width in widths([s for stage in stages for s in stage.statements if isinstance(s, MatVec)], shape, form):
        count = form.sums * width // shape.lanes
        lines += [
            f"NC_ONCE void nc_part_{width}(",
            f"    const unsigned char *w, const {number} *x, ptrdiff_t steps, {number} *kept, int first) {{",
            f"    {kind} sum[{count}] = {{{{0}}}};",
            "    if (!first) memcpy(sum, kept, sizeof sum);",
            f"    nc_panel_{width}(w, x, steps, sum);",
            "    memcpy(kept, sum, sizeof sum);",
            "}",
            "",
        ]
    return lines


def job_memory(job: Job, program: LoopProgram, weights: Weights) -> Memory:
    """Where a job finds what it works on."""
    name = identifier(job.stage.name)
    buffers = (*job.captures, *program.stages[job.stage.name].locals)
    return SlotMemory(weights, {b: f"s->{_field(name, b.name)}" for b in buffers}, "0")


def job_code(job: Job, program: LoopProgram, weights: Weights, shape: Shape, form: Format) -> list[str]:
    """The function that does piece number `piece`, their number, and how many are done after each item."""
    name, memory = identifier(job.stage.name), job_memory(job, program, weights)
    pieces: list[Piece] = []
    for statement in program.stages[job.stage.name].statements:
        if isinstance(statement, MatVec):
            pieces += _product(statement, name, memory, shape, form)
        elif isinstance(statement, Nest):
            elements = 1
            for size in statement.shape:
                elements *= size
            cost = elements * len(statement.body) // PER_LINE
            pieces.append(Piece(cost, tuple(nest_code(statement, memory))))
        else:
            raise InternalError(f"stage {job.stage.name} holds a {type(statement).__name__}, which has no pieces")
    lines = [f"static void nc_piece_{name}(nc_stream *s, const unsigned char *w, int piece) {{", "    (void)w;"]
    lines.append("    switch (piece) {")
    for number, piece in enumerate(pieces):
        lines += [f"    case {number}:", *(f"        {line}" for line in piece.lines), "        break;"]
    lines += ["    }", "}", f"#define NC_PIECES_{name} {len(pieces)}"]
    limits = ", ".join(str(limit) for limit in _limits([piece.cost for piece in pieces], job.spread))
    return [*lines, f"static const uint16_t nc_limits_{name}[{job.spread}] = {{{limits}}};", ""]


def _limits(costs: list[int], spread: int) -> list[int]:
    """Pieces that are done after each item, such that every item gets about the same share."""
    total, done, limits, number = sum(costs), 0, [], 0
    for item in range(spread):
        while number < len(costs) and (done + costs[number] / 2) * spread <= total * (item + 1):
            done += costs[number]
            number += 1
        limits.append(number)
    limits[-1] = len(costs)
    return limits


def _product(product: MatVec, name: str, memory: Memory, shape: Shape, form: Format) -> list[Piece]:
    """A product, some steps of one panel at a time; the sums wait in the stream."""
    offset = memory.weights.offsets[product.weight.name]
    prepared, inputs = product_inputs(product, memory, form)
    kind, per_step = ("vi", form.sums) if form.name == "int8" else ("vf", form.group)
    made = []
    for panel in panels(product, shape.widest, form):
        vectors = panel.width // shape.lanes
        position = offset + panel.offset
        runs: list[tuple[str, int]] = []
        for pointer, length in inputs:
            steps = -(-length // form.group)
            most = max(1, PIECE // (panel.width * form.group))
            for begin in range(0, steps, most):
                count = min(most, steps - begin)
                start = f"{pointer} + {begin * per_step}" if begin else pointer
                runs.append((f"w + {position}, {start}, {count}", count))
                position += count * panel.width * form.step_bytes
        for number, (call, count) in enumerate(runs):
            lines = [*prepared, f"nc_part_{panel.width}({call}, s->sum_{name}, {int(number == 0)});"]
            if number + 1 == len(runs):
                lines += [f"{kind} sum[{form.sums * vectors}];", f"memcpy(sum, s->sum_{name}, sizeof sum);"]
                for v in range(vectors):
                    result = whole_sum(f"sum[{v}]", f"sum[{vectors + v}]", form)
                    stored = store_sum(product, panel, v, result, memory, shape, form)
                    lines += [stored] if stored else []
            cost = count * form.group * panel.width
            made.append(Piece(cost, ("{", *(f"    {line}" for line in lines), "}")))
    return made
