"""`diagonal_scan` over a known number of steps as plain layers, for engines that cannot loop without the host.

A recurrence step is the pair (a, b) that maps x to a x + b, and pairs combine associatively. Doubling
(Hillis and Steele, "Data parallel algorithms", 1986) gives all prefixes of T steps in ceil(log2 T) rounds:

    b_t <- a_t b_{t-d} + b_t,   a_t <- a_t a_{t-d}        d = 1, 2, 4, ...; (1, 0) before the first step

with x_0 taken into b_1 first. No Loop and no Scan, so an engine can be captured in a CUDA graph.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from neurocompile.ops.emit import Emitter

Pair = tuple[ir.Value, ir.Value]


def expand(emit: Emitter, node: ir.Node, shapes: list[tuple[int, ...]]) -> list[ir.Value]:
    """Writes the layers of one `DiagonalScan` node.

    Args:
        emit: Writes in front of the node.
        node: The node; inputs `a_re, a_im, b_re, b_im` (B, T, P) and `x0_re, x0_im` (B, P) float32.
        shapes: The inputs' static shapes.

    Returns:
        `x_re, x_im` (B, T, P).
    """
    a_re, a_im, b_re, b_im, x_re, x_im = node.inputs
    batch, steps, width = shapes[2]
    axis = emit.integers(1)
    x0 = emit("Unsqueeze", x_re, axis), emit("Unsqueeze", x_im, axis)
    first = _multiply_add(
        emit,
        (emit.slice(a_re, 0, 1, 1), emit.slice(a_im, 0, 1, 1)),
        x0,
        (emit.slice(b_re, 0, 1, 1), emit.slice(b_im, 0, 1, 1)),
    )
    if steps == 1:
        return list(first)
    a: Pair = (a_re, a_im)
    b: Pair = tuple(
        emit("Concat", start, emit.slice(rest, 1, steps, 1), axis=1)
        for start, rest in zip(first, (b_re, b_im), strict=True)
    )
    distance = 1
    while distance < steps:
        zeros = emit.constant(np.zeros((batch, distance, width), np.float32))
        b = _multiply_add(emit, a, _shift(emit, b, (zeros, zeros), steps - distance), b)
        if 2 * distance < steps:
            ones = emit.constant(np.ones((batch, distance, width), np.float32))
            a = _multiply(emit, a, _shift(emit, a, (ones, zeros), steps - distance))
        distance *= 2
    return list(b)


def _shift(emit: Emitter, pair: Pair, fill: Pair, kept: int) -> Pair:
    re, im = (
        emit("Concat", before, emit.slice(value, 0, kept, 1), axis=1) for before, value in zip(fill, pair, strict=True)
    )
    return re, im


def _multiply(emit: Emitter, a: Pair, b: Pair) -> Pair:
    re = emit("Sub", emit("Mul", a[0], b[0]), emit("Mul", a[1], b[1]))
    return re, emit("Add", emit("Mul", a[0], b[1]), emit("Mul", a[1], b[0]))


def _multiply_add(emit: Emitter, a: Pair, x: Pair, b: Pair) -> Pair:
    re, im = _multiply(emit, a, x)
    return emit("Add", re, b[0]), emit("Add", im, b[1])
