"""Pass *typed*: the graph states the precision of every node; whatever would mix types gets a Cast.

    MatMul, Gemm, Conv                          in the low precision, weights stored so
    the same with operands of 8 bits            in those, scales, sums and a bias added to the result in float32; what
                                                follows takes it for low precision
    Gather from a table, data movement,         in the low precision where all that varies among the operands is,
    activations, products, sums with constants  otherwise in float32
    sums of two things that vary, and all else  in float32: states, residuals, exp, log, softmax, norms, prefix sums,
                                                divisions, reductions

Inputs and outputs of the graph keep their types, so states stay float32 whatever is computed from them. It must not
fire on graphs with control flow or functions (their bodies would keep their own types), on integers, or for float32.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir

from neurocompile.graphs import NESTED, clean, is_constant
from neurocompile.passes.report import Change
from runtime.errors import InternalError, UserError

LOW = {"bf16": ir.DataType.BFLOAT16, "fp16": ir.DataType.FLOAT16}
PRODUCTS = {"MatMul", "Gemm", "Conv"}
MOVES = {"Concat", "Expand", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
FOLLOW = {"Gelu", "Max", "Min", "Mul", "Neg", "Relu", "Sigmoid", "Tanh", "Where", *MOVES}
SUMS = {"Add", "Sub"}
ARITHMETIC = frozenset((FOLLOW | SUMS) - MOVES)
"""What lies between products. In fp16, whose bound is narrow, targets keep it in float32."""
WIDE = {"Squeeze", *SUMS}
"""What stays in float32 behind a product of 8-bit operands."""

NAMES = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.BFLOAT16: "bf16",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.FLOAT8E4M3FN: "fp8",
}


def typed(model: ir.Model, dtype: str, keep: frozenset[str] = frozenset()) -> list[Change]:
    """Rewrites one graph in place.

    Args:
        model: A float32 graph whose values all have a type.
        dtype: `bf16` or `fp16`.
        keep: Operators that stay in float32 besides, because the target has no other form of them.

    Returns:
        One change that says how many nodes run in which precision.

    Raises:
        UserError: If a weight is too large for the low precision.
    """
    graph, low = model.graph, LOW[dtype]
    if model.functions or any(a.type in NESTED for node in graph for a in node.attributes.values()):
        raise InternalError(f"graph {graph.name!r} has functions or control flow; run the pass native first")
    writer = _Writer(graph, low, dtype)
    for node in list(graph):
        wanted = low if node.op_type not in keep and _in_low(node, low) else ir.DataType.FLOAT
        for place, value in enumerate(node.inputs):
            if value is not None and value.dtype in (ir.DataType.FLOAT, low) and value.dtype != wanted:
                node.replace_input_with(place, writer.converted(value, wanted, node))
        if wanted == low:
            for value in node.outputs:
                value.type = ir.TensorType(low)  # Setting `dtype` would change every value that shares the type.
    _restore_outputs(graph)
    clean(model)
    counts = ", ".join(f"{count} in {name}" for name, count in Counter(map(precision, graph)).most_common())
    return [Change("typed", graph.name or "", f"{dtype}: {counts}")]


def precision(node: ir.Node) -> str:
    """The type a node computes in: that of its result, or of what it compares or converts, or of 8-bit operands."""
    kind = of_eight_bits(node) or node.outputs[0].dtype
    return NAMES.get(kind, kind.name.lower()) if kind is not None else "unknown"


def _in_low(node: ir.Node, low: ir.DataType) -> bool:
    if node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    floats = [value for value in node.inputs if value is not None and value.dtype in (ir.DataType.FLOAT, low)]
    varying = [value for value in floats if not is_constant(value)]
    if node.op_type in PRODUCTS:
        return of_eight_bits(node) is None
    if node.op_type == "Gather" and not varying:
        return len(floats[0].shape or ()) >= 2
    if node.op_type in SUMS and len(varying) > 1:
        return False
    if node.op_type in WIDE and all(map(comes_from_eight_bits, varying)):
        return False
    follows = node.op_type in FOLLOW or node.op_type in SUMS or node.op_type == "Gather"
    return follows and bool(varying) and all(value.dtype == low or comes_from_eight_bits(value) for value in varying)


def of_eight_bits(node: ir.Node) -> ir.DataType | None:
    """The type of a product's 8-bit operands, `None` of anything else."""
    makers = [value.producer() for value in node.inputs if value is not None] if node.op_type in PRODUCTS else []
    quantised = [maker for maker in makers if maker is not None and maker.op_type == "DequantizeLinear"]
    return quantised[0].inputs[0].dtype if quantised and quantised[0].inputs[0] is not None else None


def comes_from_eight_bits(value: ir.Value) -> bool:
    """Whether a value is a product of 8-bit operands, its rank or a bias aside."""
    node = value.producer()
    if node is None or node.op_type not in {*PRODUCTS, *WIDE}:
        return False
    if node.op_type in PRODUCTS:
        return of_eight_bits(node) is not None
    varying = [v for v in node.inputs if v is not None and v.dtype == ir.DataType.FLOAT and not is_constant(v)]
    return len(varying) == 1 and comes_from_eight_bits(varying[0])


class _Writer:
    """Makes each conversion once."""

    def __init__(self, graph: ir.Graph, low: ir.DataType, dtype: str) -> None:
        self._graph, self._low, self._dtype = graph, low, dtype
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def converted(self, value: ir.Value, kind: ir.DataType, user: ir.Node) -> ir.Value:
        """`value` in another type, made in front of `user`, its first user of that type."""
        if (value, kind) not in self._made:
            make = self._weight if is_constant(value) else self._cast
            self._made[value, kind] = make(value, kind, user)
        return self._made[value, kind]

    def _weight(self, value: ir.Value, kind: ir.DataType, user: ir.Node) -> ir.Value:
        assert value.const_value is not None
        wide = value.const_value.numpy()
        with np.errstate(over="ignore"):
            narrow = wide.astype(kind.numpy())
        if not np.isfinite(narrow.astype(np.float32)).all() and np.isfinite(wide).all():
            raise UserError(
                f"the weight {value.name} of stage {self._graph.name!r} reaches {np.abs(wide).max():.1e}, which is too "
                f"large for {self._dtype}; export this model for bf16 or fp32"
            )
        name = f"{value.name}/{self._dtype}"
        tensor = ir.Tensor(narrow, dtype=kind, name=name)
        made = ir.Value(name=name, shape=value.shape, type=ir.TensorType(kind), const_value=tensor)
        self._graph.register_initializer(made)
        return made

    def _cast(self, value: ir.Value, kind: ir.DataType, user: ir.Node) -> ir.Value:
        name = f"{value.name}/to_{NAMES[kind]}"
        node = ir.node("Cast", [value], {"to": int(kind)}, name=name)
        made = node.outputs[0]
        made.name, made.shape, made.type = name, value.shape, ir.TensorType(kind)
        self._graph.insert_before(user, node)
        return made


def _restore_outputs(graph: ir.Graph) -> None:
    """Graph outputs that came out in the low precision are cast back, under their own names."""
    for place, value in enumerate(list(graph.outputs)):
        if value.dtype not in LOW.values():
            continue
        name, value.name = value.name, f"{value.name}/low"
        node = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}, name=f"{name}/to_fp32")
        made = node.outputs[0]
        made.name, made.shape, made.type = name, value.shape, ir.TensorType(ir.DataType.FLOAT)
        graph.append(node)
        graph.outputs[place] = made
