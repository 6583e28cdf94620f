"""Gelu in plain operators, for parsers that do not know it by name. All of it is in float32: Div, Erf and Pow are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from neurocompile.ops.emit import Emitter


def expand_gelu(model: ir.Model) -> None:
    """Rewrites every Gelu of a float32 graph.

    exact:  x (1 + erf(x / sqrt 2)) / 2
    tanh:   x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
    """
    for node in list(model.graph):
        if node.op_type != "Gelu" or node.domain:
            continue
        x, old = node.inputs[0], node.outputs[0]
        emit = Emitter(model.graph, node)

        def number(value: float, emit: Emitter = emit) -> ir.Value:
            return emit.constant(np.array(value, np.float32))

        attribute = node.attributes.get("approximate")
        if attribute is not None and attribute.value == "tanh":
            cube = emit("Mul", emit("Pow", x, number(3.0)), number(0.044715))
            inner = emit("Tanh", emit("Div", emit("Add", x, cube), number(float(np.sqrt(np.pi / 2)))))
        else:
            inner = emit("Erf", emit("Div", x, number(float(np.sqrt(2)))))
        half = emit("Mul", emit("Add", inner, number(1.0)), number(0.5))
        new = emit("Mul", x, half)
        new.type, new.shape = old.type, old.shape
        if old.is_graph_output():
            new.name, old.name = old.name, f"{old.name}/replaced"
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
