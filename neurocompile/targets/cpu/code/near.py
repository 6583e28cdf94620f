"""Where angles and exponents are small: functions without reduction of their argument.

exp, sin and cos of a product s · w of a number s and constants w need no reduction while |s| max |w| is at most
ln 2 / 2 or π / 2. Their nests are written twice, and s chooses.
"""

from __future__ import annotations

from math import inf, log, pi

import numpy as np

from neurocompile.lowering.loops import Apply, Let, Load, Nest
from neurocompile.targets.cpu.placement.layout import Weights

REACH = {"exp": log(2) / 2, "sin": pi / 2, "cos": pi / 2}
MARGIN = 1 - 2.0**-16


def near(nest: Nest, steady: set[str], weights: Weights) -> tuple[str, frozenset[str]]:
    """When a nest may use the functions for small arguments.

    Args:
        nest: The nest.
        steady: Names that are the same in all iterations.
        weights: The constants.

    Returns:
        A condition in C, empty if there is none to ask for, and the names of the results it holds for.
    """
    values = {line.name: line.value for line in nest.body if isinstance(line, Let)}
    bounds: dict[str, float] = {}
    names = set()
    for name, value in values.items():
        if not isinstance(value, Apply) or value.operation not in REACH or name in steady:
            continue
        product = values.get(value.operands[0])
        if not isinstance(product, Apply) or product.operation != "mul":
            continue
        for scalar, vector in (product.operands, product.operands[::-1]):
            load = values.get(vector)
            if scalar in steady and isinstance(load, Load) and load.access.buffer.name in weights.largest:
                largest = weights.largest[load.access.buffer.name]
                bound = REACH[value.operation] * MARGIN / largest if largest else inf
                bounds[scalar] = min(bounds.get(scalar, inf), bound)
                names.add(name)
                break
    # A bound beyond float32 asks for no more than a number.
    most = float(np.finfo(np.float32).max)
    return " && ".join(f"fabsf({s}) <= {_down(min(b, most))}" for s, b in bounds.items()), frozenset(names)


def _down(bound: float) -> str:
    """The largest float32 that is no larger, in C."""
    number = np.float32(bound)
    if float(number) > bound:
        number = np.nextafter(number, np.float32(0))
    return f"{float(number).hex()}f"
