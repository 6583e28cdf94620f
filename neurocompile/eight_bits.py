"""How every weighted product of a program is computed from 8-bit operands, and which are not.

    int8   x: whole numbers of -127..127 times one scale;  weights: the same with a scale per output
    fp8    x and weights: E4M3 numbers times one scale each

Scales of x come from a calibration: its largest magnitude, so that nothing which was seen is cut off. Before x is
rounded its channels may be brought to more equal magnitudes by a constant vector of powers of two, which the weights
take back (after Xiao et al. 2023, "SmoothQuant", equation 4, α = 1/2); this happens where it makes the error on the
recording smaller. A product whose result would be off by more than the declared bound of parity, in the root mean
square over the recording, is left out: it would use up the bound alone.
Weights are rounded so that results change least (`neurocompile.compensated`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from neurocompile.calibration import Calibration, Inputs
from neurocompile.compensated import (
    LARGEST_FP8,
    LARGEST_INT8,
    compensated,
    loss,
    nearest_fp8,
    nearest_int8,
    scales_int8,
)
from neurocompile.parity import BOUNDS
from neurocompile.products import Product, find_products

LARGEST = {"int8": float(LARGEST_INT8), "fp8": LARGEST_FP8}
NEAREST = {"int8": nearest_int8, "fp8": nearest_fp8}
SMALLEST = 16
"""Products of fewer inputs or outputs than this gain nothing: it is the grain of the hardware's matrix units."""

BALANCE = 0.5
FAINT = 1e-4
"""Channels are not raised beyond what one of this share of the largest magnitude needs."""

WORTH = 0.8
"""An equaliser is a node more, so it has to take off a fifth of the squared error."""

TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Choice:
    """One product in 8 bits.

    Attributes:
        numbers: (K, N) grid numbers of the weights.
        weight_scales: (N,) float32, equal for all outputs in fp8.
        input_scale: What one step of the input stands for.
        equaliser: (K,) float32 powers of two that the input is multiplied with first, or `None`.
        error: Relative root mean squared error of the product's result that is to be expected on the recording.
    """

    numbers: np.ndarray
    weight_scales: np.ndarray
    input_scale: float
    equaliser: np.ndarray | None
    error: float


@dataclass(frozen=True)
class EightBits:
    """What becomes of a program's weighted products.

    Attributes:
        dtype: `int8` or `fp8`.
        choices: `Product.key` -> how it is computed, or why it is not in 8 bits.
    """

    dtype: str
    choices: Mapping[str, Choice | str]


def choose(graphs: Mapping[str, ir.Model], calibration: Calibration, dtype: str) -> EightBits:
    """Decides for every product.

    Args:
        graphs: Stage name -> float32 graph.
        calibration: Of these graphs.
        dtype: `int8` or `fp8`.
    """
    found: dict[str, Choice | str] = {}
    for stage, model in graphs.items():
        together: dict[ir.Value, list[Product]] = {}
        for product in find_products(stage, model):
            if product.key in found:
                continue
            if reason := obstacle(product):
                found[product.key] = reason
            else:
                together.setdefault(product.input, []).append(product)
        for products in together.values():
            found |= _choices(products, calibration, dtype)
    return EightBits(dtype, found)


def told(graphs: Mapping[str, ir.Model], eight: EightBits) -> str:
    """What became of the products, for people: how many take operands of 8 bits, and every one that does not."""
    products = [product for stage, model in graphs.items() for product in find_products(stage, model)]
    out = [(product.name, choice) for product in products if isinstance(choice := eight.choices[product.key], str)]
    text = f"{len(products) - len(out)} of {len(products)} weighted products take operands in {eight.dtype}"
    return "\n".join([f"{text}; not:", *(f"  {name}: {reason}" for name, reason in out)]) if out else text


def obstacle(product: Product) -> str:
    """Why a product stays out of 8 bits whatever the recording says; empty if nothing speaks against it."""
    if not product.is_matrix:
        return "convolution along one axis"
    inputs, outputs = product.matrix.shape
    if min(inputs, outputs) < SMALLEST:
        return f"{inputs} inputs and {outputs} outputs are fewer than {SMALLEST}"
    if product.place != 0:
        return "the weight is on the left"
    return ""


def _choices(products: list[Product], calibration: Calibration, dtype: str) -> dict[str, Choice | str]:
    """The better of two, with and without an equaliser, for products of one input: it is rounded once for all."""
    matrices = {product.key: product.matrix for product in products}
    inputs = calibration.inputs[products[0].key]
    weights = np.maximum(np.abs(np.concatenate(list(matrices.values()), 1)).max(1), TINY)
    seen = np.maximum(inputs.largest, max(inputs.maximum * FAINT, TINY))
    powers = BALANCE * (np.log2(weights) - np.log2(seen))
    factors = 2.0 ** np.round(powers - powers.mean())
    plain, equal = (
        {key: _made(matrix, calibration.inputs[key], dtype, factor) for key, matrix in matrices.items()}
        for factor in (None, factors.astype(np.float32))
    )
    errors = [sum(choice.error**2 for choice in made.values()) for made in (plain, equal)]
    chosen = equal if errors[1] < WORTH * errors[0] else plain
    return {key: choice if choice.error <= BOUNDS[dtype] else _too_far(choice, dtype) for key, choice in chosen.items()}


def _too_far(choice: Choice, dtype: str) -> str:
    return f"its error on the recording would be {choice.error:.1e}, beyond {BOUNDS[dtype]:.1e}"


def _made(matrix: np.ndarray, inputs: Inputs, dtype: str, equaliser: np.ndarray | None) -> Choice:
    trusted = inputs.moments if inputs.informative else None
    moments = np.diag(inputs.rows * inputs.largest**2) if trusted is None else trusted
    largest, factors = inputs.largest, np.ones(len(matrix)) if equaliser is None else equaliser.astype(np.float64)
    wide, power = matrix / factors[:, None], moments * np.outer(factors, factors)
    limit = float((largest * factors).max()) or 1.0
    scales = scales_int8(wide) if dtype == "int8" else np.full(matrix.shape[1], np.abs(wide).max() / LARGEST_FP8, "f4")
    scales = np.maximum(scales, np.finfo(np.float32).tiny)
    numbers = compensated(wide, power, scales, NEAREST[dtype])
    input_scale = float(np.float32(limit / LARGEST[dtype]))
    size = loss(np.zeros_like(wide), wide, power).sum() or 1.0
    of_weights = loss(wide, numbers * scales, power).sum()
    of_input = (_rounding(power, input_scale, inputs.rows, dtype) * np.square(numbers * scales).sum(1)).sum()
    return Choice(numbers, scales, input_scale, equaliser, float(np.sqrt((of_weights + of_input) / size)))


def _rounding(power: np.ndarray, step: float, rows: int, dtype: str) -> np.ndarray:
    """(K,) expected squared error of the rounded input, summed over the recording."""
    squares = np.diag(power)
    if dtype == "int8":
        return np.minimum(squares, rows * step * step / 12)
    return squares * RELATIVE_FP8


RELATIVE_FP8 = 2.0**-8 / 3
"""Mean squared relative error of three bits of mantissa: half a step of 2^-3..2^-4 each way, evenly spread."""
