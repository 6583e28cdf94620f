"""Matrices rounded to a coarse grid so that products with the inputs of a recording change least.

To round every weight to its nearest grid point loses least in the weights. What counts is the loss in the result,

    E = Σ_n (ŵ_n - w_n)ᵀ M (ŵ_n - w_n),   M = Σ x xᵀ over the recording's inputs,

and there what one input loses can be made up by the others: inputs are rounded one by one, the most active first, and
the error of each is taken off the ones that are still open, along the conditional mean that M implies (Frantar et al.
2023, "GPTQ", equations 2 and 3; the inverse by Cholesky as there). No output ends up worse than with the nearest
numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np

Nearest = Callable[[np.ndarray], np.ndarray]

DAMPING = 0.01
"""Share of the mean squared input that is added to all, so that inputs which were never active have a weight."""

SHARES = np.linspace(0.7, 1, 24)
"""How much of a column's largest weight the grid may span."""

LARGEST_INT8 = 127
LARGEST_FP8 = 448.0


def nearest_int8(values: np.ndarray) -> np.ndarray:
    """The nearest whole number of -127..127."""
    return np.clip(np.round(values), -LARGEST_INT8, LARGEST_INT8)


def nearest_fp8(values: np.ndarray) -> np.ndarray:
    """The nearest number of the format E4M3 (finite; largest 448)."""
    limited = np.clip(values, -LARGEST_FP8, LARGEST_FP8).astype(np.float32)
    return limited.astype(ml_dtypes.float8_e4m3fn).astype(np.float64)


def loss(matrix: np.ndarray, rounded: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """(N,) E of every output: squared error of the result, summed over the recording."""
    difference = rounded.astype(np.float64) - matrix
    return np.maximum(np.einsum("kn,kn->n", difference, moments @ difference), 0)


def scales_int8(matrix: np.ndarray) -> np.ndarray:
    """(N,) float32 scale per output of a (K, N) matrix: of 24 clippings the one that loses least in the weights."""
    largest = np.maximum(np.abs(matrix).max(0), np.finfo(np.float32).tiny).astype(np.float64)
    best, least = largest / LARGEST_INT8, np.full(matrix.shape[1], np.inf)
    for share in SHARES:
        scale = np.float32(largest * share / LARGEST_INT8).astype(np.float64)
        now = np.square(nearest_int8(matrix / scale) * scale - matrix).sum(0)
        best, least = np.where(now < least, scale, best), np.minimum(now, least)
    return best.astype(np.float32)


def compensated(matrix: np.ndarray, moments: np.ndarray, scales: np.ndarray | float, nearest: Nearest) -> np.ndarray:
    """Rounds a matrix to a grid with one step per output.

    Args:
        matrix: (K, N).
        moments: (K, K) Σ x xᵀ of the inputs.
        scales: Grid step, one per output or one for all.
        nearest: Rounds multiples of the step to numbers of the grid.

    Returns:
        (K, N) grid numbers; times `scales` they stand for the matrix.
    """
    step = np.broadcast_to(np.asarray(scales, np.float64), matrix.shape[1])
    plain = nearest(matrix / step) * step
    found = in_turn(matrix, moments, most_active_first(moments), lambda _, row: nearest(row / step) * step, plain)
    return nearest(found / step)


def most_active_first(moments: np.ndarray) -> np.ndarray:
    """(K,) order of the inputs in which little is left for the last ones to lose."""
    return np.argsort(-np.diag(moments), kind="stable")


def in_turn(
    matrix: np.ndarray,
    moments: np.ndarray,
    order: np.ndarray,
    nearest: Callable[[int, np.ndarray], np.ndarray],
    plain: np.ndarray,
) -> np.ndarray:
    """Rounds a matrix input by input; what each loses is made up by those that follow.

    Args:
        matrix: (K, N).
        moments: (K, K) Σ x xᵀ of the inputs.
        order: (K,) in which the inputs are rounded.
        nearest: Rounds the (N,) weights of input k; it is asked once for every input, in that order.
        plain: (K, N) the nearest numbers, for outputs that would end up worse.

    Returns:
        (K, N) float64, the rounded weights.
    """
    power = np.diag(moments)
    if not power.any():
        return plain
    damped = (moments + DAMPING * power.mean() * np.eye(len(matrix)))[np.ix_(order, order)]
    inverse = np.linalg.inv(damped)
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    open_, found = matrix[order].astype(np.float64), np.empty(matrix.shape)
    for k, row in enumerate(upper):
        found[order[k]] = nearest(int(order[k]), open_[k])
        error = (open_[k] - found[order[k]]) / row[k]
        open_[k + 1 :] -= np.outer(row[k + 1 :], error)
    better = loss(matrix, found, moments) < loss(matrix, plain, moments)
    return np.where(better, found, plain)


def told(matrix: np.ndarray, moments: np.ndarray, plain: np.ndarray, found: np.ndarray) -> str:
    """The relative error of the result on the recording, with the nearest numbers and with those found instead."""
    size = loss(np.zeros_like(matrix), matrix, moments).sum() or 1.0
    before, after = (float(np.sqrt(loss(matrix, rounded, moments).sum() / size)) for rounded in (plain, found))
    return f"error of the result on the recording {before:.1e} -> {after:.1e}"
