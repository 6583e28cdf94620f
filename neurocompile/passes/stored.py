"""Pass *stored*: float32 weights that hold nothing but numbers of a lower precision are stored in it and widened.

    weight float32  ->  the same numbers in bf16 or fp16, and a Cast to float32

It changes no result: it fires only where narrowing and widening gives every number back, bit by bit. It must not fire
on scalars and vectors of shapes and axes (nothing is gained), nor on a graph's overridable inputs. Runtimes evaluate
the Cast once, when they load the graph.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from neurocompile.graphs import is_constant
from neurocompile.passes.report import Change
from neurocompile.passes.typed import LOW

SMALLEST = 16
"""Elements below which a weight stays as it is."""


def stored(model: ir.Model, dtype: str) -> list[Change]:
    """Rewrites one graph in place.

    Args:
        model: A graph without functions.
        dtype: `bf16` or `fp16`.

    Returns:
        One change with the number of weights, none where nothing could be narrowed.
    """
    graph, kind, count = model.graph, LOW[dtype], 0
    for name, value in list(graph.initializers.items()):
        if value.dtype != ir.DataType.FLOAT or not is_constant(value) or value.is_graph_output() or not value.uses():
            continue
        assert value.const_value is not None
        wide = value.const_value.numpy()
        with np.errstate(over="ignore"):
            narrow = wide.astype(kind.numpy())
        if wide.size < SMALLEST or not np.array_equal(narrow.astype(np.float32), wide):
            continue
        kept = ir.Value(
            name=f"{name}/stored",
            shape=value.shape,
            type=ir.TensorType(kind),
            const_value=ir.Tensor(narrow, dtype=kind, name=f"{name}/stored"),
        )
        graph.register_initializer(kept)
        cast = ir.node("Cast", [kept], {"to": int(ir.DataType.FLOAT)}, name=f"{name}/widen")
        made = cast.outputs[0]
        made.name, made.shape, made.type = f"{name}/wide", value.shape, ir.TensorType(ir.DataType.FLOAT)
        graph.insert_before(graph[0], cast)
        ir.convenience.replace_all_uses_with(value, made)
        del graph.initializers[name]
        count += 1
    return [Change("stored", graph.name or "", f"{count} weights as {dtype}")] if count else []
