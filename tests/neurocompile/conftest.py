"""Graphs by hand, and running them: what the tests of capture and passes share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def graph() -> Callable[..., ir.Model]:
    """Makes a model from ONNX's textual form, with initializers given as arrays."""

    def make(text: str, functions: str = "", **constants: np.ndarray) -> ir.Model:
        opsets = '"" : 20' + (', "made.up" : 1' if functions else "")
        proto = onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{opsets}]>\n{text}\n{functions}")
        for name, array in constants.items():
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return ir.from_proto(onnx.shape_inference.infer_shapes(proto))

    return make


@pytest.fixture(scope="session")
def run() -> Callable[..., Arrays]:
    """Runs a model that must be valid ONNX in stock ONNX Runtime: outputs by name."""

    def evaluate(model: ir.Model, **feeds: object) -> Arrays:
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        kinds = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
        inputs = [*session.get_inputs(), *session.get_overridable_initializers()]
        typed = {i.name: np.asarray(feeds[i.name], kinds.get(i.type, np.float32)) for i in inputs if i.name in feeds}
        names = [output.name for output in session.get_outputs()]
        assert len(set(names)) == len(names)
        return dict(zip(names, session.run(names, typed), strict=True))

    return evaluate


@pytest.fixture(scope="session")
def kinds() -> Callable[[ir.Model], list[str]]:
    """The operators of a graph, in order."""
    return lambda model: [node.op_type for node in model.graph]
