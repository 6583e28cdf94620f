"""Writes nodes into a graph, one call per node: what the static forms of the ops are made with."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir


class Emitter:
    """Inserts nodes in front of one node, under names that begin with its name.

    Args:
        graph: The graph that owns the node.
        before: The node in front of which everything is put.
    """

    def __init__(self, graph: ir.Graph, before: ir.Node) -> None:
        self._graph, self._before = graph, before
        self._stem = before.name or before.op_type
        self._count = 0

    def __call__(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Adds a node of one output and returns that.

        Args:
            op_type: A standard operator.
            inputs: Its operands; `None` for one that is left out.
            attributes: Its attributes.
        """
        node = ir.node(op_type, list(inputs), attributes, name=f"{self._stem}/{op_type}_{self._next()}")
        node.outputs[0].name = f"{node.name}:out"
        self._graph.insert_before(self._before, node)
        return node.outputs[0]

    def constant(self, array: np.ndarray) -> ir.Value:
        """Adds an initializer."""
        name = f"{self._stem}/constant_{self._next()}"
        tensor = ir.Tensor(np.array(array, order="C"), name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def integers(self, *numbers: int) -> ir.Value:
        """A constant vector of int64."""
        return self.constant(np.array(numbers, np.int64))

    def slice(self, value: ir.Value, begin: int, end: int, axis: int) -> ir.Value:
        """Elements `begin` to `end`, exclusive, along one axis; no negative numbers."""
        return self("Slice", value, self.integers(begin), self.integers(end), self.integers(axis))

    def _next(self) -> int:
        self._count += 1
        return self._count
