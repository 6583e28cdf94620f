"""The low-precision forms of `onnx-bf16` and `onnx-fp16`: one for providers that compute in it, one for the processor.

Both state the precision of every node (pass *typed*), without functions and loops, so that a provider may replay them
as a CUDA graph. ONNX Runtime's processor kernels compute in fp16 (they widen inside) but not in bf16. So a bf16 bundle
ships its graphs twice: as typed, and as float32 nodes that round wherever the typed ones do, which is derived
mechanically from them (`neurocompile.upcast`) with the weights stored as bf16. The second form runs everywhere.
"""

from __future__ import annotations

import onnx_ir as ir

from neurocompile.graph_program import GraphProgram
from neurocompile.passes.native import infer, native
from neurocompile.passes.report import Change
from neurocompile.passes.stored import stored
from neurocompile.passes.typed import ARITHMETIC, typed
from neurocompile.upcast import upcast

WIDE = {"bf16": frozenset({"Conv", "Tanh", "Where"}), "fp16": ARITHMETIC}
"""Operators that stay in float32.

In bf16 because ONNX Runtime's CUDA provider has no documented kernel of that type.
"""

PORTABLE = frozenset({"bf16"})
"""Precisions in which the processor's provider has no products, so that it needs a form of its own."""


def typed_models(program: GraphProgram, dtype: str) -> tuple[dict[str, ir.Model], list[Change]]:
    """Stage name -> the graph with stated precisions, and what was rewritten.

    Raises:
        UserError: If a stage has no form in plain layers or a weight does not fit the precision.
    """
    models, changes = dict(program.copy().graphs), []
    for model in models.values():
        changes += native(model)
        changes += typed(model, dtype, WIDE[dtype])
        infer(model)
    return models, changes


def portable(model: ir.Model, dtype: str) -> ir.Model:
    """The float32 form of a typed graph, its weights stored in the low precision; for any provider."""
    made = upcast(model)
    stored(made, dtype)
    return made
