"""Matrices in bfloat16, two weights in a word, rounded so that results change least.

In a word (`formats.pair_words`) the second weight's lower mantissa is what the first weight is made of, so the first
one is rounded first, and the second one to the nearest of the words that are then left. Pairs come in the order of
their more active input; what a weight loses is made up by all that follow (`neurocompile.compensated`). Packing finds
the same words again and loses nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from neurocompile.calibration import Calibration
from neurocompile.compensated import in_turn, most_active_first, told
from neurocompile.graph_program import GraphProgram
from neurocompile.lowering.loops import LoopProgram, MatMul, MatVec
from neurocompile.passes.report import Change
from neurocompile.products import find_products, key_of
from neurocompile.targets.cpu.placement.formats import pair_words


def compensate_pairs(
    loops: LoopProgram, program: GraphProgram, calibration: Calibration
) -> tuple[LoopProgram, list[Change]]:
    """Rounds the matrices of all products whose inputs the calibration saw often enough (`Inputs.informative`).

    Args:
        loops: The loops; not changed.
        program: The graphs that they were made of.
        calibration: Of these graphs.

    Returns:
        The loops with those matrices replaced, and one change per product with the relative error of its result
        before and after.
    """
    pieces = {
        statement.weight.name: [length for _, length in statement.pieces]
        for stage in loops.stages.values()
        for statement in stage.statements
        if isinstance(statement, MatVec | MatMul)
    }
    weights, errors = dict(loops.weights), {}
    for name, lengths in pieces.items():
        matrix, key = loops.weights[name], key_of(loops.weights[name])
        inputs = calibration.inputs.get(key)
        if inputs is not None and inputs.informative and inputs.moments is not None:
            weights[name] = compensated_words(matrix, inputs.moments, lengths)
            errors[key] = told(matrix, inputs.moments, nearest_words(matrix, lengths), weights[name])
    changes = [
        Change("compensate", stage, f"{product.node.name} {product.matrix.shape}: {errors[product.key]}")
        for stage in loops.stages
        for product in find_products(stage, program.graphs[stage])
        if product.key in errors
    ]
    return replace(loops, weights=weights), changes


def compensated_words(matrix: np.ndarray, moments: np.ndarray, pieces: Sequence[int]) -> np.ndarray:
    """Rounds a matrix.

    Args:
        matrix: (K, N) float32.
        moments: (K, K) Σ x xᵀ of the inputs.
        pieces: Lengths of the pieces of the input, which each begin a new word.

    Returns:
        (K, N) float32 numbers that words in these pieces hold exactly.
    """
    plain = nearest_words(matrix, pieces)
    begins = np.cumsum([0, *pieces])
    firsts = {k: k - 1 for begin, end in pairwise(begins) for k in range(begin + 1, end, 2)}
    order: dict[int, None] = {}
    for k in most_active_first(moments).tolist():
        first = firsts.get(k, k)
        order |= dict.fromkeys((first, first + 1) if first + 1 in firsts else (first,))
    found: dict[int, np.ndarray] = {}

    def nearest(k: int, row: np.ndarray) -> np.ndarray:
        block = np.stack([found[firsts[k]], row] if k in firsts else [row, row]).astype(np.float32)
        found[k] = _held(block)[int(k in firsts)]
        return found[k]

    return in_turn(matrix, moments, np.array(list(order)), nearest, plain).astype(np.float32)


def nearest_words(matrix: np.ndarray, pieces: Sequence[int]) -> np.ndarray:
    """(K, N) float32: what packing makes of a matrix."""
    parts, begin = [], 0
    for length in pieces:
        block = np.zeros((length + length % 2, matrix.shape[1]), np.float32)
        block[:length] = matrix[begin : begin + length]
        parts.append(_held(block)[:length])
        begin += length
    return np.concatenate(parts)


def _held(block: np.ndarray) -> np.ndarray:
    """(K, N) float32, K even -> the numbers that its words stand for."""
    words, held = pair_words(block), np.empty_like(block)
    held[0::2], held[1::2] = (words << 16).view(np.float32), words.view(np.float32)
    return held
