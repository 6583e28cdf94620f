"""The weighted products of a graph: MatMul, Gemm and Conv of something that varies with a constant matrix."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from neurocompile.graphs import array_of, shape_of


@dataclass(frozen=True, eq=False)
class Product:
    """One node whose result is its input times a matrix.

    Attributes:
        stage: Name of the graph.
        node: The node.
        place: Position of the input among the node's operands.
        weight_place: Position of the weight.
        outputs_axis: Axis of the weight along which the outputs lie.
        inputs_axis: Axis of the input along which the inputs lie.
        key: Equal for products whose matrices are equal, in whatever layout: a stage and the chunk, for instance.
    """

    stage: str
    node: ir.Node
    place: int
    weight_place: int
    outputs_axis: int
    inputs_axis: int
    key: str

    @property
    def input(self) -> ir.Value:
        """What is multiplied."""
        value = self.node.inputs[self.place]
        assert value is not None
        return value

    @property
    def weight(self) -> ir.Value:
        """The constant."""
        value = self.node.inputs[self.weight_place]
        assert value is not None
        return value

    @property
    def name(self) -> str:
        """Stage and node, for reports."""
        return f"{self.stage}: {self.node.name}"

    @property
    def matrix(self) -> np.ndarray:
        """(K, N) float32: inputs by outputs. The K of a Conv are the taps of one output, group by group."""
        array = array_of(self.weight)
        assert array is not None
        return canonical(array, self.outputs_axis)

    @property
    def is_matrix(self) -> bool:
        """Whether K is the input's own axis; not so for Conv, whose taps overlap."""
        return self.node.op_type != "Conv"


def canonical(weight: np.ndarray, outputs_axis: int) -> np.ndarray:
    """The weight as (K, N)."""
    moved = np.moveaxis(weight, outputs_axis, -1)
    return np.ascontiguousarray(moved.reshape(-1, moved.shape[-1]))


def restored(matrix: np.ndarray, shape: tuple[int, ...], outputs_axis: int) -> np.ndarray:
    """A (K, N) matrix in the layout of a weight of that shape; the inverse of `canonical`."""
    moved = (*np.delete(shape, outputs_axis), shape[outputs_axis])
    return np.ascontiguousarray(np.moveaxis(matrix.reshape(moved), -1, outputs_axis))


def find_products(stage: str, model: ir.Model) -> list[Product]:
    """The weighted products of one graph, in its order; those inside functions and branches are none.

    Args:
        stage: The graph's name.
        model: The graph; weights are initializers.
    """
    found = []
    for node in model.graph:
        if node.domain not in ("", "ai.onnx") or (axes := _axes(node)) is None:
            continue
        place, weight_place, outputs_axis, inputs_axis = axes
        array = array_of(node.inputs[weight_place])
        assert array is not None
        matrix = canonical(array, outputs_axis)
        key = key_of(matrix, overlapping=node.op_type == "Conv")
        found.append(Product(stage, node, place, weight_place, outputs_axis, inputs_axis, key))
    return found


def key_of(matrix: np.ndarray, overlapping: bool = False) -> str:
    """`Product.key` of a (K, N) float32 matrix; `overlapping` says that its K are the taps of a Conv."""
    return hashlib.sha256(f"{overlapping} {matrix.shape}".encode() + matrix.tobytes()).hexdigest()


def _axes(node: ir.Node) -> tuple[int, int, int, int] | None:
    """Places of input and weight, axis of the outputs in the weight, axis of the inputs in the input; or nothing."""
    if node.op_type not in ("MatMul", "Gemm", "Conv"):
        return None
    arrays = [array_of(value) for value in node.inputs[:2]]
    if (arrays[0] is None) == (arrays[1] is None):
        return None
    array = arrays[0] if arrays[0] is not None else arrays[1]
    if array is None or array.dtype != np.float32:
        return None
    if node.op_type == "Conv":
        return (0, 1, 0, 1) if arrays[1] is not None else None
    if array.ndim != 2:
        return None
    turned = {name: bool(node.attributes[name].value) if name in node.attributes else False for name in TURNS}
    if arrays[1] is not None:
        return None if turned["transA"] else (0, 1, 0 if turned["transB"] else 1, -1)
    value = node.inputs[1]
    shape = shape_of(value) if value is not None else None
    if node.op_type == "Gemm" or shape is None or len(shape) < 2:
        return None
    return 1, 0, 0, -2


TURNS = ("transA", "transB")
