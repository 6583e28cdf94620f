"""C of forgetting attention: the kernels that `csrc/attention.c` is made of, and the calls of it.

A tile is a group of keys times a few vectors of queries, one query per lane, so that maxima and sums of a softmax never
cross lanes. Keys and values are read where they are, one number at a time, and meet all queries of the tile.
"""

from __future__ import annotations

from neurocompile.lowering.loops import Attention
from neurocompile.targets.cpu.code.products import Shape
from neurocompile.targets.cpu.code.rows import dense, registers
from neurocompile.targets.cpu.placement.memory import Memory
from runtime.errors import InternalError

VECTORS = 3
"""Vectors of queries in a tile."""


def group(shape: Shape) -> int:
    """Keys, or channels of a value, in a tile: with the queries they fill three quarters of the registers."""
    return registers(shape) // 4


def queries(shape: Shape) -> int:
    """Queries in a tile."""
    return VECTORS * shape.lanes


def attention_kernels(shape: Shape) -> list[str]:
    """Scores of a group of keys, and the sum of weighted values for a group of channels."""
    keys = 48
    lines = [
        f"#define NC_QUERY_VECTORS {VECTORS}",
        f"#define NC_QUERIES {queries(shape)}",
        f"#define NC_KEYS {keys}",
        f"#define NC_GROUP {group(shape)}",
        "",
    ]
    for count in (group(shape), 1):
        lines += [*_scores(count, shape, begun=False), *_scores(count, shape, begun=True), *_values(count, shape)]
    return lines


def _scores(count: int, shape: Shape, begun: bool) -> list[str]:
    """`begun`: the tile holds the decay already; else it is own - there."""
    size = queries(shape)
    decay = "" if begun else "const float *own, const float *there, "
    lines = [
        f"NC_INLINE void nc_scores_{'begun_' if begun else ''}{count}(const float *q, const float *k, ptrdiff_t step,",
        f"                            ptrdiff_t width, {decay}float *s, vf *top) {{",
    ]
    for j in range(count):
        for v in range(VECTORS):
            start = f"nc_load(s + {j * size + v * shape.lanes})"
            if not begun:
                start = f"nc_load(own + {v * shape.lanes}) - nc_splat(there[{j}])"
            lines.append(f"    vf a{j}_{v} = {start};")
    lines += ["    for (ptrdiff_t d = 0; d < width; d++) {"]
    lines += [f"        const vf q{v} = nc_load(q + d * {size} + {v * shape.lanes});" for v in range(VECTORS)]
    for j in range(count):
        lines.append(f"        const vf k{j} = nc_splat(k[{j} * step + d]);")
        lines += [f"        a{j}_{v} += q{v} * k{j};" for v in range(VECTORS)]
    lines.append("    }")
    for j in range(count):
        for v in range(VECTORS):
            lines.append(f"    nc_store(s + {j * size + v * shape.lanes}, a{j}_{v});")
    for v in range(VECTORS):
        text = f"a0_{v}"
        for j in range(1, count):
            text = f"nc_larger({text}, a{j}_{v})"
        lines.append(f"    top[{v}] = nc_larger(top[{v}], {text});")
    return [*lines, "}", ""]


def _values(count: int, shape: Shape) -> list[str]:
    size = queries(shape)
    lines = [
        f"NC_INLINE void nc_values_{count}(const float *p, ptrdiff_t keys, const float *value, ptrdiff_t step,",
        "                          float *o) {",
    ]
    places = [(d, v, f"o + {d * size + v * shape.lanes}") for d in range(count) for v in range(VECTORS)]
    lines += [f"    vf a{d}_{v} = {{0}};" for d, v, _ in places]
    lines += ["    for (ptrdiff_t j = 0; j < keys; j++) {"]
    lines += [f"        const vf p{v} = nc_load(p + j * {size} + {v * shape.lanes});" for v in range(VECTORS)]
    for d in range(count):
        lines.append(f"        const vf y{d} = nc_splat(value[j * step + {d}]);")
        lines += [f"        a{d}_{v} += p{v} * y{d};" for v in range(VECTORS)]
    lines.append("    }")
    lines += [f"    nc_store({place}, nc_load({place}) + a{d}_{v});" for d, v, place in places]
    return [*lines, "}", ""]


def attention_code(op: Attention, memory: Memory, work: int) -> list[str]:
    """Lines of C: one call per query head.

    Args:
        op: The statement.
        memory: Where its operands lie.
        work: Byte offset of its own memory in the session's block.

    Returns:
        The lines.
    """
    if not all(dense(access) for name, access in (*op.operands.items(), ("out", op.out)) if name != "log_f"):
        raise InternalError("attention needs neighbouring channels side by side")
    lines = []
    for head in range(op.heads):
        own, key = ("0", str(head), "0"), ("0", str(head // (op.heads // op.key_heads)), "0")
        places = []
        for name, access in op.operands.items():
            indices = (key if name in ("k", "v") else own)[: len(access.strides)]
            places.append(f"{memory.pointer(access, indices)}, {access.strides[0]}")
        if op.known is None:
            places.append("NULL, 0")
        *before, step = op.out.strides[:-2]
        out = memory.pointer(op.out, (*("0" for _ in before), *own))
        sizes = f"{op.steps}, {op.steps - op.queries}, {op.keys}, {op.cut}, {op.width}"
        places.append(f"{out}, {step}, {before[0] if before else 0}")
        lines.append(f"nc_attention({sizes}, {', '.join(places)}, scratch + {work});")
    return lines
