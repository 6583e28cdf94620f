"""Pass *compensate*: weight matrices become numbers of an 8-bit grid, chosen so that results change least.

    product with a matrix  ->  the same product with s_n q_kn,  q whole numbers of -127..127, one scale per output

The numbers are `neurocompile.compensated`'s, for the inputs that a calibration saw; the scales are those that lose
least in the weights. A target that keeps 8-bit weights finds the grid again (`placement.formats.quantise`) and loses
nothing more. It must not fire on products whose inputs were seen too rarely (`Inputs.informative`): what is learned
from a few would not hold for others. Nor on convolutions, whose moments are not kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurocompile.calibration import Calibration, Inputs
from neurocompile.compensated import compensated, nearest_int8, scales_int8, told
from neurocompile.graph_program import GraphProgram
from neurocompile.graphs import constant
from neurocompile.passes.report import Change
from neurocompile.products import find_products, restored


def compensate(program: GraphProgram, calibration: Calibration) -> tuple[GraphProgram, list[Change]]:
    """Rewrites the weights of all graphs; equal weights, as those of the chunk form, stay equal.

    Args:
        program: The program after the other passes; it is not changed.
        calibration: Of these very graphs.

    Returns:
        The rewritten program, and one change per product with the relative error of its result before and after.
    """
    program, changes = program.copy(), []
    found: dict[str, tuple[np.ndarray, str]] = {}
    chunk = program.spec.chunk.name if program.spec.chunk else None
    for stage, model in program.graphs.items():
        for product in find_products(stage, model):
            inputs = calibration.inputs.get(product.key)  # The chunk may have products of its own.
            if inputs is None or not inputs.informative:
                continue
            if product.key not in found:
                found[product.key] = _rounded(product.matrix, inputs)
            matrix, what = found[product.key]
            weight = product.weight
            shape = tuple(int(size) for size in weight.shape or ())
            made = constant(model.graph, f"{weight.name}/int8", restored(matrix, shape, product.outputs_axis))
            product.node.replace_input_with(product.weight_place, made)
            if not weight.uses():
                del model.graph.initializers[str(weight.name)]
            if stage != chunk:
                changes.append(Change("compensate", stage, f"{product.node.name} {matrix.shape}: {what}"))
    return program, changes


def _rounded(matrix: np.ndarray, inputs: Inputs) -> tuple[np.ndarray, str]:
    moments: Any = inputs.moments
    scales = scales_int8(matrix)
    numbers = compensated(matrix, moments, scales, nearest_int8)
    made = (numbers * scales).astype(np.float32)
    return made, told(matrix, moments, nearest_int8(matrix / scales) * scales, made)
