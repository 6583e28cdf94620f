"""Which operators keep rows apart: row i of what they make depends on row i of what they take, and on constants.

A rank-1 index makes rows, one per element; as long as nothing mixes them, a table of rows can take the place of the
computation. An operator that is not known here counts as one that mixes.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from neurocompile.graphs import array_of, shape_of

# fmt: off
ELEMENTWISE = {
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log",
    "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign",
    "Sin", "Softplus", "Sqrt", "Sub", "Tanh", "Where", "Xor",
}
# fmt: on
REDUCTIONS = {"ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"}
WITHIN = {"LayerNormalization": -1, "LogSoftmax": -1, "Softmax": -1}
"""Operators along the axes from their attribute `axis` on, with its default."""


def keeps_rows(node: ir.Node, reached: Collection[ir.Value], rows: int) -> bool:
    """Whether a node keeps `rows` rows apart.

    Args:
        node: A node of which at least one operand is in `reached`.
        reached: Values whose first axis counts the rows; every other operand is a constant.
        rows: How many there are, at least 2.

    Returns:
        `False` also where it cannot be told.
    """
    kind, operands = node.op_type, [value for value in node.inputs if value is not None]
    shapes = [shape_of(value) for value in operands]
    made = [shape_of(value) for value in node.outputs]
    if node.domain or None in shapes or any(shape is None or not shape or shape[0] != rows for shape in made):
        return False
    rank = len(made[0] or ())
    mine = [value in reached for value in operands]
    ranks = [len(shape or ()) for shape in shapes]
    if kind in ELEMENTWISE:
        return all(
            size == rank if row else size < rank or (shape or ())[0] == 1
            for row, size, shape in zip(mine, ranks, shapes, strict=True)
        )
    first_alone = mine[0] and not any(mine[1:])
    if kind in ("Squeeze", "Unsqueeze", *REDUCTIONS):
        axes = array_of(operands[1]) if len(operands) > 1 else None
        whole = rank if kind == "Unsqueeze" else ranks[0]
        return first_alone and axes is not None and axes.size > 0 and bool((axes % whole > 0).all())
    if kind == "Concat":
        return all(mine) and node.attributes["axis"].as_int() % rank > 0
    if kind in WITHIN:
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else WITHIN[kind]
        return first_alone and axis % ranks[0] > 0 and all(size < rank for size in ranks[1:])
    if kind == "MatMul":
        return first_alone and ranks[0] > 1 and ranks[1] <= 2
    if kind == "Gemm":
        turned = "transA" in node.attributes and node.attributes["transA"].as_int()
        return (
            first_alone
            and not turned
            and all(size < 2 or (s or ())[0] == 1 for size, s in zip(ranks[2:], shapes[2:], strict=True))
        )
    if kind == "Gather":
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        return mine == [False, True] and axis == 0
    # With as many rows before and after, a row keeps its elements.
    return kind in ("Flatten", "Reshape") and first_alone
