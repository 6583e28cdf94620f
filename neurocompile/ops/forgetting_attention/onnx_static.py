"""`forgetting_attention` over a known number of steps as plain layers, for engines that cannot loop without the host.

Blocks of `QUERIES` queries, each with all keys up to its own end, one after the other in the graph. The decay between
query i of a block that begins at n and key j is

    j < n:   sum_{r = n .. i} log_f_r  +  sum_{r = j+1 .. n-1} log_f_r      (a prefix sum and a reversed one)
    j >= n:  sum_{r = j+1 .. i} log_f_r, down the columns of a matrix that is zero above;  -1e30 where j > i

Gates' logarithms have one sign, so nothing cancels and float32 is enough, where differences of prefix sums would need
float64, which TensorRT does not have.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from neurocompile.ops.emit import Emitter

QUERIES = 512
HIDDEN = -1.0e30


def expand(emit: Emitter, node: ir.Node, shapes: list[tuple[int, ...]]) -> list[ir.Value]:
    """Writes the layers of one `ForgettingAttention` node.

    Args:
        emit: Writes in front of the node.
        node: The node; inputs `q` (B, T, H, D), `k` and `v` (B, T, K, D), `log_f` (B, T, H) float32.
        shapes: The inputs' static shapes.

    Returns:
        `o` (B, T, H, D).
    """
    q, k, v, log_f = node.inputs
    batch, steps, heads, width = shapes[0]
    key_heads = shapes[1][2]
    group = heads // key_heads
    scale = emit.constant(np.array(1 / np.sqrt(width), np.float32))
    cut = emit("Reshape", emit("Mul", q, scale), emit.integers(batch, steps, key_heads, group, width))
    queries = emit("Transpose", cut, perm=[0, 2, 3, 1, 4])
    keys = emit("Unsqueeze", emit("Transpose", k, perm=[0, 2, 3, 1]), emit.integers(2))
    values = emit("Unsqueeze", emit("Transpose", v, perm=[0, 2, 1, 3]), emit.integers(2))
    gates_cut = emit("Reshape", log_f, emit.integers(batch, steps, key_heads, group))
    gates = emit("Transpose", gates_cut, perm=[0, 2, 3, 1])
    blocks = [
        _block(emit, queries, keys, values, gates, begin, min(begin + QUERIES, steps))
        for begin in range(0, steps, QUERIES)
    ]
    whole = emit("Concat", *blocks, axis=3) if len(blocks) > 1 else blocks[0]
    ordered = emit("Transpose", whole, perm=[0, 3, 1, 2, 4])
    return [emit("Reshape", ordered, emit.integers(batch, steps, heads, width))]


def _block(
    emit: Emitter, queries: ir.Value, keys: ir.Value, values: ir.Value, gates: ir.Value, begin: int, end: int
) -> ir.Value:
    """(B, K, H/K, end - begin, D): the queries of one block against the keys before `end`."""
    axis = emit.constant(np.array(3, np.int64))
    size = end - begin
    own = emit.slice(gates, begin, end, 3)
    later = emit.constant(np.tri(size, k=-1, dtype=bool))
    steps = emit("Where", later, emit("Unsqueeze", own, emit.integers(4)), emit.constant(np.array(0, np.float32)))
    within = emit("CumSum", steps, axis)
    seen = emit.constant(np.tri(size, dtype=bool))
    decay = emit("Where", seen, within, emit.constant(np.array(HIDDEN, np.float32)))
    if begin:
        past = emit("CumSum", emit.slice(gates, 0, begin, 3), axis, exclusive=1, reverse=1)
        column = emit("Unsqueeze", emit("CumSum", own, axis), emit.integers(4))
        decay = emit("Concat", emit("Add", column, emit("Unsqueeze", past, emit.integers(3))), decay, axis=4)
    products = emit("MatMul", emit.slice(queries, begin, end, 3), emit.slice(keys, 0, end, 4))
    weights = emit("Softmax", emit("Add", products, decay), axis=-1)
    return emit("MatMul", weights, emit.slice(values, 0, end, 3))
