"""`forgetting_attention_suffixes` over a known number of steps as plain layers; see `onnx_function.py` for their order.

The decay between a query and a key is a sum of gates between two positions, written so that no two sums cancel and
float32 is enough. With N = T - Q, the first position that has a query:

    j < N:               prefix sum of the queries' gates up to i  +  sum of those that follow j, before N
    N <= j < M <= i:     prefix sum of the gates from M up to i    +  sum of those that follow j, before M
    N <= j <= i < M:     down the columns of a matrix
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from neurocompile.ops.emit import Emitter
from neurocompile.ops.forgetting_attention.onnx_static import HIDDEN


def expand(emit: Emitter, node: ir.Node, shapes: list[tuple[int, ...]]) -> list[ir.Value]:
    """Writes the layers of one `ForgettingAttentionSuffixes` node.

    Args:
        emit: Writes in front of the node.
        node: The node; inputs `q` (B, Q, H, D), `k` and `v` (B, M, K, D), `log_f` (B, T, H), `known` (B, Q, H, D + 1)
            float32, attribute `cut`.
        shapes: The inputs' static shapes.

    Returns:
        `o` (B, M / C, Q, H, D + 1).
    """
    q, k, v, log_f, known = node.inputs
    (batch, queries, heads, width), (keys, key_heads), steps = shapes[0], shapes[1][1:3], shapes[3][1]
    cut, group = int(node.attributes["cut"].value), heads // key_heads
    parts = keys // cut

    def grouped(value: ir.Value | None, size: int) -> ir.Value:
        split = emit("Reshape", value, emit.integers(batch, queries, key_heads, group, size))
        return emit("Unsqueeze", emit("Transpose", split, perm=[0, 2, 3, 1, 4]), emit.integers(3))

    def cut_up(value: ir.Value | None, perm: list[int]) -> ir.Value:
        split = emit("Reshape", value, emit.integers(batch, parts, cut, key_heads, width))
        return emit("Unsqueeze", emit("Transpose", split, perm=perm), emit.integers(2))

    scaled = emit("Mul", q, emit.constant(np.array(1 / np.sqrt(width), np.float32)))
    products = emit("MatMul", grouped(scaled, width), cut_up(k, [0, 3, 1, 4, 2]))
    gates_cut = emit("Reshape", log_f, emit.integers(batch, steps, key_heads, group))
    decay = _decay(emit, emit("Transpose", gates_cut, perm=[0, 2, 3, 1]), steps, queries, keys)
    # (B, K, H / K, Q, M) -> (B, K, H / K, M / C, Q, C)
    decay_cut = emit("Reshape", decay, emit.integers(batch, key_heads, group, queries, parts, cut))
    scores = emit("Add", products, emit("Transpose", decay_cut, perm=[0, 1, 2, 4, 3, 5]))
    largest = emit("ReduceMax", scores, emit.integers(-1), keepdims=1)
    place, position = np.arange(steps - queries, steps), np.arange(keys).reshape(parts, 1, cut)
    powers = emit("Exp", emit("Sub", scores, largest))
    zero = emit.constant(np.array(0, np.float32))
    weights = emit("Where", emit.constant(place[:, None] >= position), powers, zero)
    mass = emit("ReduceSum", weights, emit.integers(-1), keepdims=1)
    part = emit("MatMul", weights, cut_up(v, [0, 3, 1, 2, 4]))

    value, score = (emit.slice(known, begin, end, 3) for begin, end in ((0, width), (width, width + 1)))
    score_all = grouped(score, 1)
    unit = emit.constant(np.ones((batch, key_heads, group, 1, queries, 1), np.float32))
    columns = [
        emit("Unsqueeze", emit("Concat", *pair, axis=3), emit.integers(3))
        for pair in ((largest, score_all), (mass, unit), (part, grouped(value, width)))
    ]
    taken = emit.constant(np.arange(parts + 1)[:, None, None] >= np.arange(parts)[:, None, None, None])
    tops = emit("Where", taken, columns[0], emit.constant(np.array(HIDDEN, np.float32)))
    top = emit("ReduceMax", tops, emit.integers(4), keepdims=1)
    factors = emit("Where", taken, emit("Exp", emit("Sub", tops, top)), zero)
    total, summed = (
        emit("ReduceSum", emit("Mul", factors, column), emit.integers(4), keepdims=0) for column in columns[1:]
    )
    logarithm = emit("Add", emit("Squeeze", top, emit.integers(4)), emit("Log", total))
    packed = emit("Concat", emit("Div", summed, total), logarithm, axis=5)
    ordered = emit("Transpose", packed, perm=[0, 3, 4, 1, 2, 5])
    return [emit("Reshape", ordered, emit.integers(batch, parts, queries, heads, width + 1))]


def _decay(emit: Emitter, gates: ir.Value, steps: int, queries: int, keys: int) -> ir.Value:
    """(B, K, H / K, T) gates -> (B, K, H / K, Q, M), `HIDDEN` where a key comes after its query."""
    axis, begin = emit.constant(np.array(3, np.int64)), steps - queries
    both = max(keys - begin, 0)
    blocks: list[ir.Value] = []
    if begin:
        # Keys before any query.
        upto = emit("CumSum", emit.slice(gates, begin, steps, 3), axis)
        blocks.append(_outer(emit, upto, _later(emit, emit.slice(gates, 0, begin, 3), keys)))
    if both:
        own = emit.slice(gates, begin, keys, 3)
        behind = emit.constant(np.tri(both, k=-1, dtype=bool))
        steps_down = emit(
            "Where", behind, emit("Unsqueeze", own, emit.integers(4)), emit.constant(np.array(0, np.float32))
        )
        within = emit("CumSum", steps_down, axis)
        seen = emit.constant(np.tri(both, dtype=bool))
        rows = [emit("Where", seen, within, emit.constant(np.array(HIDDEN, np.float32)))]
        if steps > keys:
            upto = emit("CumSum", emit.slice(gates, keys, steps, 3), axis)
            rows.append(_outer(emit, upto, _later(emit, own, both)))
        blocks.append(emit("Concat", *rows, axis=3) if len(rows) > 1 else rows[0])
    return emit("Concat", *blocks, axis=4) if len(blocks) > 1 else blocks[0]


def _later(emit: Emitter, gates: ir.Value, keys: int) -> ir.Value:
    """(.., N) gates -> (.., min(N, M)) sum of those that follow each of the first M."""
    axis = emit.constant(np.array(3, np.int64))
    return emit.slice(emit("CumSum", gates, axis, exclusive=1, reverse=1), 0, keys, 3)


def _outer(emit: Emitter, rows: ir.Value, columns: ir.Value) -> ir.Value:
    """Sums of every element of (.., R) with every element of (.., C)."""
    return emit("Add", emit("Unsqueeze", rows, emit.integers(4)), emit("Unsqueeze", columns, emit.integers(3)))
