"""Networks with an op of ours as torch's own exporter writes them, and stock ONNX Runtime to run them."""

from __future__ import annotations

import warnings
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch

from neurocompile.ops.function import NodeFunction


def to_onnx(function: NodeFunction, module: Any, inputs: tuple[torch.Tensor, ...], **options: Any) -> onnx.ModelProto:
    """The graph, with the op's body beside it; valid ONNX."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, inputs, dynamo=True, opset_version=20, optimize=False, verbose=False, **options
        )
    function.attach(program.model)
    proto = ir.to_proto(program.model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """ONNX Runtime on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
