"""`gated_linear_attention` over a known number of steps as plain layers, for engines that cannot loop without the host.

The blocks of `blocked.py`, written out one after the other with the state carried between them:

    o_i = [ (q_i . k_j) e^{sum_{j < r <= i} log f_r} ]_{j <= i} v + e^{c_i} S^T q_i,    c_i = sum_{r <= i} log f_r
    S'  = e^{c_C} S + sum_j e^{sum_{j < r <= C} log f_r} k_j v_j^T

Every exponent is a sum of its own, none a difference, so float32 loses nothing to cancellation.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from neurocompile.ops.emit import Emitter

BLOCK = 64
HIDDEN = -1.0e30


def expand(emit: Emitter, node: ir.Node, shapes: list[tuple[int, ...]]) -> list[ir.Value]:
    """Writes the layers of one `GatedLinearAttention` node.

    Args:
        emit: Writes in front of the node.
        node: The node; inputs `q` (B, T, H, D), `k` (B, T, K, D), `v` (B, T, K, E), `log_f` (B, T, H) and `state`
            (B, H, D, E) float32.
        shapes: The inputs' static shapes.

    Returns:
        `o` (B, T, H, E) and the last state.
    """
    q, k, v, log_f, state = node.inputs
    (batch, steps, heads, width), key_heads, out = shapes[0], shapes[1][2], shapes[2][3]
    group = heads // key_heads
    scale = emit.constant(np.array(1 / np.sqrt(width), np.float32))
    cut = emit("Reshape", emit("Mul", q, scale), emit.integers(batch, steps, key_heads, group, width))
    queries = emit("Transpose", cut, perm=[0, 2, 3, 1, 4])
    keys = emit("Unsqueeze", emit("Transpose", k, perm=[0, 2, 3, 1]), emit.integers(2))
    values = emit("Unsqueeze", emit("Transpose", v, perm=[0, 2, 1, 3]), emit.integers(2))
    gates_cut = emit("Reshape", log_f, emit.integers(batch, steps, key_heads, group))
    gates = emit("Transpose", gates_cut, perm=[0, 2, 3, 1])
    s, results = emit("Reshape", state, emit.integers(batch, key_heads, group, width, out)), []
    for begin in range(0, steps, BLOCK):
        end = min(begin + BLOCK, steps)
        cuts = ((queries, 3), (keys, 4), (values, 3), (gates, 3))
        s, result = _block(emit, end - begin, s, *(emit.slice(value, begin, end, axis) for value, axis in cuts))
        results.append(result)
    whole = emit("Concat", *results, axis=3) if len(results) > 1 else results[0]
    o = emit("Reshape", emit("Transpose", whole, perm=[0, 3, 1, 2, 4]), emit.integers(batch, steps, heads, out))
    return [o, emit("Reshape", s, emit.integers(batch, heads, width, out))]


def _block(
    emit: Emitter, size: int, s: ir.Value, queries: ir.Value, keys: ir.Value, values: ir.Value, gates: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """The next state (B, K, H/K, D, E) and the results (B, K, H/K, size, E) of one block."""
    axis = emit.constant(np.array(3, np.int64))
    passed = emit("CumSum", gates, axis)
    column = emit("Unsqueeze", passed, emit.integers(4))
    later = emit.constant(np.tri(size, k=-1, dtype=bool))
    zero = emit.constant(np.array(0, np.float32))
    between = emit("CumSum", emit("Where", later, emit("Unsqueeze", gates, emit.integers(4)), zero), axis)
    seen = emit.constant(np.tri(size, dtype=bool))
    decay = emit("Exp", emit("Where", seen, between, emit.constant(np.array(HIDDEN, np.float32))))
    own = emit("MatMul", emit("Mul", emit("MatMul", queries, keys), decay), values)
    before = emit("MatMul", emit("Mul", queries, emit("Exp", column)), s)
    left = emit("Exp", emit("CumSum", gates, axis, exclusive=1, reverse=1))
    learnt = emit("MatMul", emit("Mul", keys, emit("Unsqueeze", left, emit.integers(3))), values)
    kept = emit("Exp", emit("Unsqueeze", emit.slice(passed, size - 1, size, 3), emit.integers(4)))
    return emit("Add", emit("Mul", kept, s), learnt), emit("Add", own, before)
