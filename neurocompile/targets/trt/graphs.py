"""The typed graphs that a TensorRT of the named version reads: plain layers, static shapes, stated precision."""

from __future__ import annotations

import onnx_ir as ir

from neurocompile.eight_bits import EightBits
from neurocompile.graph_program import GraphProgram
from neurocompile.passes.native import infer, native
from neurocompile.passes.quantised import quantised
from neurocompile.passes.report import Change
from neurocompile.passes.typed import ARITHMETIC, LOW, typed
from neurocompile.targets.trt.gelu import expand_gelu
from neurocompile.targets.trt.versions import VERSIONS

CONV_IN_BFLOAT16 = 22
"""The operator set that gave Conv the type bfloat16."""


def typed_graphs(
    program: GraphProgram,
    dtype: str,
    tensorrt: str,
    keep: frozenset[tuple[str, str]] = frozenset(),
    eight: EightBits | None = None,
) -> tuple[dict[str, ir.Model], list[Change]]:
    """Lowers every graph of a program.

    Args:
        program: The program after the passes; it is not changed.
        dtype: `fp32`, `bf16` or `fp16`.
        tensorrt: A key of `VERSIONS`.
        keep: Stages and op nodes in them that stay op nodes, for plugins.
        eight: Products that take operands of 8 bits; `dtype` is then what the rest is computed in.

    Returns:
        Stage name -> graph, and what was rewritten.

    Raises:
        UserError: If a stage has no static form or a weight does not fit the precision.
    """
    version, changes = VERSIONS[tensorrt], []
    models = dict(program.copy().graphs)
    for stage, model in models.items():
        changes += native(model, frozenset(node for of, node in keep if of == stage))
        if not version.gelu:
            expand_gelu(model)
            infer(model)
        if eight:
            changes += quantised(stage, model, eight)
            infer(model)
        if dtype in LOW:
            no_conv = dtype == "bf16" and version.opset < CONV_IN_BFLOAT16
            wide = ARITHMETIC if dtype == "fp16" else frozenset({"Conv"} if no_conv else ())
            changes += typed(model, dtype, wide)
        if dtype == "bf16" and version.opset >= CONV_IN_BFLOAT16:
            # Between 20 and 22 the operators used here gained types and nothing else.
            model.graph.opset_imports[""] = CONV_IN_BFLOAT16
        infer(model)
    return models, changes
