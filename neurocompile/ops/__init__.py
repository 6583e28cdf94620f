"""The operations that standard graphs lack; one folder per op, the same file names in each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

OPS = ("diagonal_scan", "forgetting_attention", "forgetting_attention_suffixes", "gated_linear_attention", "lif")


def attach_functions(model: ir.Model) -> None:
    """Gives every node of the `neurocompile` domain in `model` its function body of standard ops."""
    if any(node.domain == "neurocompile" for node in model.graph):
        for op in OPS:
            import_module(f"neurocompile.ops.{op}.onnx_function").FUNCTION.attach(model)
