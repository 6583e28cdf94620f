"""ONNX operators that work element by element."""

from __future__ import annotations

from functools import reduce

import numpy as np
import onnx_ir as ir

from neurocompile.lowering.loops import Constant
from neurocompile.lowering.operators import Call, Result, operator

NAMES = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "Neg": "neg",
    "Abs": "abs",
    "Sqrt": "sqrt",
    "Reciprocal": "reciprocal",
    "Exp": "exp",
    "Log": "log",
    "Sin": "sin",
    "Cos": "cos",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Erf": "erf",
    "Floor": "floor",
    "Relu": "relu",
    "Not": "not",
    "And": "and",
    "Or": "or",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Equal": "equal",
}
SWAPPED = {"Greater": "less", "GreaterOrEqual": "less_equal"}


@operator(*NAMES)
def _plain(call: Call) -> Result:
    return call.builder.map(NAMES[call.node.op_type], *(call.operand(k) for k in range(len(call.inputs))))


@operator(*SWAPPED)
def _swapped(call: Call) -> Result:
    return call.builder.map(SWAPPED[call.node.op_type], call.operand(1), call.operand(0))


@operator("Max", "Min", "Sum")
def _variadic(call: Call) -> Result:
    operation = {"Max": "max", "Min": "min", "Sum": "add"}[call.node.op_type]
    operands = [call.operand(k) for k in range(len(call.inputs))]
    return reduce(lambda a, b: call.builder.map(operation, a, b), operands)


@operator("Where")
def _where(call: Call) -> Result:
    return call.builder.map("select", *(call.operand(k) for k in range(3)))


@operator("Clip")
def _clip(call: Call) -> Result:
    value = call.operand(0)
    for number, operation in ((1, "max"), (2, "min")):
        if number < len(call.inputs) and call.inputs[number] is not None:
            value = call.builder.map(operation, value, call.operand(number))
    return value


@operator("Mod")
def _remainder(call: Call) -> Result:
    """Of whole numbers that are not negative."""
    a, b = call.operand(0), call.operand(1)
    if a.dtype not in ("int64", "int32") or call.attribute("fmod", 0):
        call.refuse("only remainders of whole numbers are compiled")
    return call.builder.map("sub", a, call.builder.map("mul", call.builder.map("div", a, b), b))


@operator("Cast")
def _cast(call: Call) -> Result:
    dtype = ir.DataType(call.attribute("to", 0)).numpy().name
    operand = call.operand(0)
    if operand.dtype == dtype:
        return operand
    return call.builder.map("cast", operand, dtype=dtype)


@operator("Pow")
def _power(call: Call) -> Result:
    exponent = np.asarray(call.known(1))
    x = call.operand(0)
    if exponent.size != 1 or exponent.item() not in (0.5, 1, 2, 3):
        call.refuse("only powers 0.5, 1, 2 and 3 are compiled")
    if exponent.item() == 0.5:
        return call.builder.map("sqrt", x)
    return reduce(lambda a, b: call.builder.map("mul", a, b), [x] * int(exponent.item()))


@operator("Softplus")
def _softplus(call: Call) -> Result:
    """max(x, 0) + log(1 + exp(-|x|))."""
    builder, x = call.builder, call.operand(0)
    tail = builder.map("exp", builder.map("neg", builder.map("abs", x)))
    return builder.map(
        "add", builder.map("relu", x), builder.map("log", builder.map("add", tail, Constant(1.0, "float32")))
    )
