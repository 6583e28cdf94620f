"""Pass *quantised*: products get their operands through QuantizeLinear and DequantizeLinear, as TensorRT wants it said.

    y = x W  ->  y = DQ(Q(x * e)) DQ(W8)        scales, sums and result in float32; e only where it helps

A vector becomes a matrix of one row for it, so that every product is one of matrices. It runs on float32 graphs, before
*typed*, which gives what follows a product its 16 bits. It must not fire on a product that `neurocompile.eight_bits`
keeps out, nor twice.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from neurocompile.eight_bits import Choice, EightBits
from neurocompile.graphs import constant, shape_of
from neurocompile.passes.report import Change
from neurocompile.products import Product, find_products, restored

STORED = {"int8": np.dtype(np.int8), "fp8": np.dtype(ml_dtypes.float8_e4m3fn)}


def quantised(stage: str, model: ir.Model, eight: EightBits) -> list[Change]:
    """Rewrites one graph in place.

    Args:
        stage: The graph's name.
        model: A float32 graph whose values all have a type and a shape.
        eight: How every product is computed, or why it stays as it is.

    Returns:
        One change per product, those that stay included.
    """
    changes, writer, dtype = [], _Writer(model.graph, eight.dtype), eight.dtype
    for product in find_products(stage, model):
        choice = eight.choices[product.key]
        if isinstance(choice, str):
            changes.append(Change("quantised", stage, f"{product.node.name} not in {dtype}: {choice}"))
            continue
        writer.rewrite(product, choice)
        how = ", inputs equalised" if choice.equaliser is not None else ""
        what = f"{product.node.name} in {dtype}{how}: error on the recording {choice.error:.1e}"
        changes.append(Change("quantised", stage, what))
    return changes


class _Writer:
    """Makes every pair of nodes and every weight once."""

    def __init__(self, graph: ir.Graph, dtype: str) -> None:
        self._graph, self._kind = graph, STORED[dtype]
        self._inputs: dict[tuple[ir.Value, float, bytes], ir.Value] = {}
        self._weights: dict[ir.Value, ir.Value] = {}

    def rewrite(self, product: Product, choice: Choice) -> None:
        """Gives one product operands of 8 bits."""
        node, result = product.node, product.node.outputs[0]
        vector = len(shape_of(product.input) or ()) == 1
        equaliser = b"" if choice.equaliser is None else choice.equaliser.tobytes()
        key = (product.input, choice.input_scale, equaliser)
        if key not in self._inputs:
            self._inputs[key] = self._input(product.input, choice, node, vector)
        old = product.weight
        if old not in self._weights:
            self._weights[old] = self._weight(product, choice)
        node.replace_input_with(product.place, self._inputs[key])
        node.replace_input_with(product.weight_place, self._weights[old])
        if not old.uses():
            del self._graph.initializers[str(old.name)]
        if vector:
            self._row(node, result)

    def _input(self, value: ir.Value, choice: Choice, user: ir.Node, vector: bool) -> ir.Value:
        if choice.equaliser is not None:
            factors = constant(self._graph, f"{value.name}/equaliser", choice.equaliser)
            value = self._node(user, "Mul", [value, factors], f"{value.name}/equal", value)
        if vector:
            shape = (1, *(shape_of(value) or ()))
            axes = constant(self._graph, f"{value.name}/axes", np.array([0], np.int64))
            value = self._node(user, "Unsqueeze", [value, axes], f"{value.name}/row", value, shape)
        scale = constant(self._graph, f"{value.name}/scale", np.array(choice.input_scale, np.float32))
        zero = constant(self._graph, f"{value.name}/zero", np.zeros((), self._kind))
        whole = self._node(user, "QuantizeLinear", [value, scale, zero], f"{value.name}/q", value)
        whole.type = ir.TensorType(zero.dtype)
        return self._node(user, "DequantizeLinear", [whole, scale, zero], f"{value.name}/dq", value)

    def _weight(self, product: Product, choice: Choice) -> ir.Value:
        name, axis = product.weight.name, product.outputs_axis
        shape = tuple(int(size) for size in product.weight.shape or ())
        numbers = constant(
            self._graph, f"{name}/8", restored(choice.numbers.astype(self._kind), shape, product.outputs_axis)
        )
        even = bool((choice.weight_scales == choice.weight_scales[0]).all()) and self._kind != np.int8
        scales = choice.weight_scales[0] if even else choice.weight_scales
        scale = constant(self._graph, f"{name}/scale", np.asarray(scales, np.float32))
        zero = constant(self._graph, f"{name}/zero", np.zeros(np.shape(scales), self._kind))
        attributes = {} if even else {"axis": axis}
        made = self._node(
            product.node, "DequantizeLinear", [numbers, scale, zero], f"{name}/dq", product.weight, shape, attributes
        )
        return made

    def _row(self, node: ir.Node, result: ir.Value) -> None:
        """The product of a row is a row; what used the vector gets it squeezed."""
        shape = shape_of(result) or ()
        axes = constant(self._graph, f"{result.name}/axes", np.array([0], np.int64))
        name, result.name = str(result.name), f"{result.name}/row"
        squeeze = ir.node("Squeeze", [result, axes], name=f"{node.name}/squeeze")
        made = squeeze.outputs[0]
        made.name, made.type, made.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
        self._graph.insert_after(node, squeeze)
        for use in result.uses():
            if use.node is not squeeze:
                use.node.replace_input_with(use.idx, made)
        for place, output in enumerate(list(self._graph.outputs)):
            if output is result:
                self._graph.outputs[place] = made
        result.shape = ir.Shape((1, *shape))

    def _node(
        self,
        user: ir.Node,
        kind: str,
        inputs: list[ir.Value],
        name: str,
        like: ir.Value,
        shape: tuple[int, ...] | None = None,
        attributes: dict[str, int] | None = None,
    ) -> ir.Value:
        """A node in front of `user`, whose result is float32 and of `like`'s shape unless another is given."""
        node = ir.node(kind, inputs, attributes or {}, name=name)
        made = node.outputs[0]
        made.name, made.type = f"{name}:out", ir.TensorType(ir.DataType.FLOAT)
        made.shape = ir.Shape(shape) if shape is not None else like.shape
        self._graph.insert_before(user, node)
        return made
