"""A stage graph as a Python function over an array library, so that its compiler sees plain operators of its own.

One walk, two vocabularies: torch (eager, torch.compile, AOTInductor) and jax.numpy (XLA).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from itertools import accumulate, pairwise
from typing import Any

import onnx
from onnx import numpy_helper

from runtime.errors import UserError

Operator = Callable[..., Any]
DTYPES = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 11: "float64"}


class GraphFunction:
    """The graph as a function of its constants and its inputs, in order.

    Args:
        model: A graph of standard operators.
        vocabulary: Operator type -> function of (attributes, arguments..).

    Attributes:
        inputs: Names of the graph's inputs.
        constants: Floating-point initialisers by name. The others are indices, sizes and axes: Python numbers.

    Raises:
        UserError: If the vocabulary lacks an operator.
    """

    def __init__(self, model: onnx.ModelProto, vocabulary: Mapping[str, Operator]) -> None:
        graph = model.graph
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.inputs = tuple(value.name for value in graph.input)
        self.constants = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
        self._numbers = {name: array.tolist() for name, array in arrays.items() if array.dtype.kind != "f"}
        self._outputs = [value.name for value in graph.output]
        self._nodes = []
        for node in graph.node:
            if node.op_type not in vocabulary:
                raise UserError(f"operator {node.op_type} of {graph.name} has no translation in this benchmark")
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            self._nodes.append((vocabulary[node.op_type], attributes, tuple(node.input), tuple(node.output)))

    def __call__(self, constants: Mapping[str, Any], *inputs: Any) -> tuple[Any, ...]:
        """The graph's outputs, from the library's constants and inputs."""
        values: dict[str, Any] = {"": None, **self._numbers, **constants, **dict(zip(self.inputs, inputs, strict=True))}
        for function, attributes, taken, made in self._nodes:
            result = function(attributes, *[values[name] for name in taken])
            values.update(zip(made, result if len(made) > 1 else (result,), strict=True))
        return tuple(values[name] for name in self._outputs)


def common(xp: Any) -> dict[str, Operator]:
    """The operators that torch and jax.numpy call alike."""
    two: dict[str, Operator] = {
        "Add": operator.add,
        "Sub": operator.sub,
        "Mul": operator.mul,
        "Div": operator.truediv,
        "Greater": operator.gt,
        "MatMul": operator.matmul,
    }
    one = {name: getattr(xp, name.lower()) for name in ("Exp", "Cos", "Sin", "Tanh", "Sqrt")}
    return {
        **{name: lambda _, a, b, f=f: f(a, b) for name, f in two.items()},
        **{name: lambda _, a, f=f: f(a) for name, f in one.items()},
        "Neg": lambda _, a: -a,
        "Reciprocal": lambda _, a: 1 / a,
        "Identity": lambda _, a: a,
        "Where": lambda _, c, a, b: xp.where(c, a, b),
        "Reshape": lambda _, a, shape: a.reshape(shape),
        "Gather": gather,
        "Split": split,
        "Unsqueeze": unsqueeze,
        "Gelu": gelu(xp),
        "LayerNormalization": layer_norm(xp),
    }


def gather(attributes: Mapping[str, Any], a: Any, index: Any) -> Any:
    """Rows of the first axis."""
    if attributes.get("axis", 0) != 0:
        raise UserError("Gather along another axis than the first has no translation in this benchmark")
    return a[index]


def split(attributes: Mapping[str, Any], a: Any, sizes: list[int] | None = None) -> list[Any]:
    """Parts of a vector."""
    if sizes is None or len(a.shape) != 1:
        raise UserError("Split of other than a vector into given sizes has no translation in this benchmark")
    edges = accumulate(sizes, initial=0)
    return [a[begin:end] for begin, end in pairwise(edges)]


def unsqueeze(_: Mapping[str, Any], a: Any, axes: list[int]) -> Any:
    """New axes of length 1."""
    shape = list(a.shape)
    for axis in sorted(axes):
        shape.insert(axis, 1)
    return a.reshape(shape)


def gelu(xp: Any) -> Operator:
    """The tanh form 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))."""

    def function(attributes: Mapping[str, Any], x: Any) -> Any:
        if attributes.get("approximate") != b"tanh":
            raise UserError("only the tanh form of Gelu has a translation in this benchmark")
        return 0.5 * x * (1 + xp.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))

    return function


def layer_norm(xp: Any) -> Operator:
    """(x - mean) / √(variance + ε) · scale + bias over the last axis."""

    def function(attributes: Mapping[str, Any], x: Any, scale: Any, bias: Any = None) -> Any:
        centred = x - x.mean(-1)[..., None]
        normal = centred / xp.sqrt((centred * centred).mean(-1)[..., None] + attributes.get("epsilon", 1e-5))
        return normal * scale if bias is None else normal * scale + bias

    return function
