"""C of a stage: where its locals lie, then its statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from neurocompile.lowering.loops import (
    Attention,
    LoopProgram,
    MatMul,
    MatVec,
    Nest,
    Rows,
    Scatter,
    StageLoops,
    Statement,
)
from neurocompile.targets.cpu.code.attention import attention_code, attention_kernels, queries
from neurocompile.targets.cpu.code.nests import nest_code
from neurocompile.targets.cpu.code.products import Shape, product_code
from neurocompile.targets.cpu.code.rows import block_kernel, blocks, mat_mul_code, rows_code, scatter_code
from neurocompile.targets.cpu.placement.arena import Arena, plan
from neurocompile.targets.cpu.placement.formats import Format
from neurocompile.targets.cpu.placement.layout import identifier
from neurocompile.targets.cpu.placement.memory import TYPES, Memory

ROW = """/* A restored state may say anything: rows that do not exist are the first one. */
NC_INLINE ptrdiff_t nc_row(int64_t row, ptrdiff_t rows) { return row < 0 || row >= rows ? 0 : (ptrdiff_t)row; }"""


def wide_kernels(program: LoopProgram, shape: Shape, form: Format, attention: str) -> list[str]:
    """What stages of many rows call, and how large the session's block is.

    Args:
        program: The loops.
        shape: How matrices are cut.
        form: How their numbers are kept.
        attention: The text of `csrc/attention.c`.

    Returns:
        Lines of C.
    """
    statements = [s for stage in program.stages.values() for s in stage.statements]
    arenas = [plan(stage, queries(shape)) for stage in program.stages.values()]
    size = max((arena.size for arena in arenas if arena), default=0)
    lines = [f"#define NC_SCRATCH {size}"]
    if size:
        lines += ["static unsigned char *nc_scratch(nc_stream *s);", ""]
    for width, rows in blocks([s for s in statements if isinstance(s, MatMul)], shape, form):
        lines += block_kernel(width, rows, shape, form)
    if any(isinstance(s, Rows | Scatter) and s.index.buffer.kind != "item" for s in statements):
        lines += [ROW, ""]
    if any(isinstance(s, Attention) for s in statements):
        lines += [*attention_kernels(shape), attention]
    return lines


def stage_code(
    stage: StageLoops, memory: Memory, shape: Shape, form: Format, along: Mapping[Nest, Sequence[str]]
) -> list[str]:
    """The function of a stage.

    Args:
        stage: Its loops.
        memory: Where its operands lie.
        shape: How matrices are cut.
        form: How their numbers are kept.
        along: What is done in every iteration of some nests.

    Returns:
        Lines of C.
    """
    arena = plan(stage, queries(shape))
    lines = [f"static void nc_stage_{identifier(stage.name)}(nc_stream *s, const unsigned char *w) {{", "    (void)w;"]
    if arena:
        lines.append("    unsigned char *const scratch = nc_scratch(s);")
    for buffer in stage.locals:
        kind, name = TYPES[buffer.dtype], identifier(buffer.name)
        if arena:
            lines.append(f"    {kind} *const {name} = ({kind} *)(scratch + {arena.offsets[buffer.name]});")
        else:
            lines.append(f"    _Alignas(64) {kind} {name}[{buffer.size}];")
    for number, statement in enumerate(stage.statements):
        lines += [f"    {line}" for line in _statement(statement, number, arena, memory, shape, form, along)]
    return [*lines, "}", ""]


def _statement(
    statement: Statement,
    number: int,
    arena: Arena | None,
    memory: Memory,
    shape: Shape,
    form: Format,
    along: Mapping[Nest, Sequence[str]],
) -> list[str]:
    if isinstance(statement, MatVec):
        return product_code(statement, memory, shape, form)
    if isinstance(statement, MatMul):
        return mat_mul_code(statement, memory, shape, form)
    if isinstance(statement, Rows):
        return rows_code(statement, memory)
    if isinstance(statement, Scatter):
        return scatter_code(statement, memory)
    if isinstance(statement, Attention):
        assert arena is not None
        return attention_code(statement, memory, arena.work[number])
    return nest_code(statement, memory, along.get(statement, ()))
