"""Typed graphs for TensorRT: static forms of the ops, where casts go, and the float32 form that rounds like them."""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from neurocompile.ops.diagonal_scan import onnx_function as scan_function
from neurocompile.ops.diagonal_scan.reference import diagonal_scan
from neurocompile.ops.forgetting_attention import onnx_function as attention_function
from neurocompile.ops.forgetting_attention.reference import forgetting_attention
from neurocompile.ops.function import DOMAIN
from neurocompile.ops.gated_linear_attention import onnx_function as gated_function
from neurocompile.ops.gated_linear_attention.reference import gated_linear_attention
from neurocompile.passes.native import infer, native
from neurocompile.passes.typed import precision, typed
from neurocompile.targets.trt.gelu import expand_gelu
from neurocompile.upcast import upcast
from runtime.errors import InternalError, UserError

KINDS = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16}


def with_node(function, inputs: dict[str, np.ndarray], outputs: list[str] | dict[str, tuple[int, ...]]) -> ir.Model:
    """A graph of one node of ours."""
    values = {
        name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
        for name, array in inputs.items()
    }
    shape = next(iter(inputs.values())).shape
    shapes = outputs if isinstance(outputs, dict) else dict.fromkeys(outputs, shape)
    made = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size) for name, size in shapes.items()]
    node = onnx.helper.make_node(function.FUNCTION.op_type, list(inputs), list(outputs), domain=DOMAIN, name="op")
    graph = onnx.helper.make_graph([node], "stage", list(values.values()), made)
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid(DOMAIN, 1)]
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))
    function.FUNCTION.attach(model)
    return model


@pytest.mark.parametrize("steps", [1, 2, 63, 100, 256])
def test_the_scan_without_a_loop(steps, run):
    rng = np.random.default_rng(steps)
    angle, size = rng.uniform(-3, 3, (2, steps, 5)), rng.uniform(0.8, 1, (2, steps, 5))
    a = size * np.exp(1j * angle)
    arrays = {"a_re": a.real, "a_im": a.imag}
    arrays |= {name: rng.normal(size=(2, steps, 5)) for name in ("b_re", "b_im")}
    arrays |= {name: rng.normal(size=(2, 5)) for name in ("x0_re", "x0_im")}
    model = with_node(scan_function, arrays, ["x_re", "x_im"])
    [change] = native(model)
    assert change.what.startswith("op -> ")
    assert {node.op_type for node in model.graph} <= {"Add", "Concat", "Mul", "Slice", "Sub", "Unsqueeze"}
    wanted = diagonal_scan(*(torch.from_numpy(array) for array in arrays.values()))
    for got, want in zip(run(model, **arrays).values(), wanted, strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=2e-5)


@pytest.mark.parametrize("steps", [1, 63, 600])
def test_attention_without_a_loop(steps, run):
    rng = np.random.default_rng(steps)
    shapes = {"q": (2, steps, 4, 8), "k": (2, steps, 2, 8), "v": (2, steps, 2, 8)}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    arrays["log_f"] = -rng.exponential(3.0, (2, steps, 4))
    model = with_node(attention_function, arrays, ["o"])
    native(model)
    assert not model.functions
    wanted = forgetting_attention(*(torch.from_numpy(array) for array in arrays.values())).numpy()
    np.testing.assert_allclose(run(model, **arrays)["o"], wanted, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 63, 150])
def test_gated_attention_without_a_loop(steps, run):
    rng = np.random.default_rng(steps)
    shapes = {"q": (2, steps, 4, 8), "k": (2, steps, 2, 8), "v": (2, steps, 2, 6)}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    arrays["log_f"] = -rng.exponential(1.0, (2, steps, 4))
    arrays["state"] = rng.normal(size=(2, 4, 8, 6))
    wanted = gated_linear_attention(*(torch.from_numpy(array) for array in arrays.values()))
    made = dict(zip(("o", "last"), (tuple(value.shape) for value in wanted), strict=True))
    model = with_node(gated_function, arrays, made)
    native(model)
    for got, want in zip(run(model, **arrays).values(), wanted, strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-5)


def test_what_keeps_a_loop_is_refused():
    with pytest.raises(UserError, match=r"control flow \(Loop\)"):
        native(_loop())


def _loop() -> ir.Model:
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20]>
        stage (float[3] x) => (float[3] y) <int64 n = {3}, bool go = {1}> {
            y = Loop <body = b (int64 i, bool c, float[3] s) => (bool d, float[3] t) {
                d = Identity (c)
                t = Add (s, s)
            }> (n, go, x)
        }"""
    )
    return ir.from_proto(proto)


def sample(graph) -> ir.Model:
    """A step with a state, a product, an activation, a norm, and a table."""
    rng = np.random.default_rng(0)
    return graph(
        """stage (int64 i, float[4] x) => (float[4] x_next, float[4] y) {
            u = Gather (table, i)
            d = MatMul (u, w)
            e = Add (d, bias)
            a = Sigmoid (e)
            g = Mul (a, e)
            kept = Mul (x, decay)
            x_next = Add (kept, g)
            n = Softmax (x_next)
            y = MatMul (n, w)
        }""",
        table=rng.normal(size=(7, 4)).astype(np.float32),
        w=rng.normal(size=(4, 4)).astype(np.float32),
        bias=rng.normal(size=4).astype(np.float32),
        decay=np.full(4, 0.9, np.float32),
    )


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_precision_of_every_node(graph, dtype):
    model = sample(graph)
    typed(model, dtype)
    infer(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    found = {node.outputs[0].name: precision(node) for node in model.graph if node.op_type != "Cast"}
    low = {"u", "d", "e", "a", "g", "y/low"}
    assert found == dict.fromkeys(low, dtype) | dict.fromkeys(("kept", "x_next", "n"), "fp32")
    casts = Counter(precision(node) for node in model.graph if node.op_type == "Cast")
    assert casts == {dtype: 1, "fp32": 2}  # n into the product; g into the state, y out of the graph
    weights = {name: str(value.dtype) for name, value in model.graph.initializers.items()}
    assert weights["decay"] == "FLOAT"
    assert len(weights) == 4
    assert sorted(weights.values()).count("FLOAT") == 1


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_the_float32_form_rounds_where_the_typed_graph_does(graph, run, dtype):
    model = sample(graph)
    arrays = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    typed(model, dtype)
    infer(model)
    derived = upcast(model)
    assert {str(v.dtype) for v in derived.graph.initializers.values()} == {"FLOAT"}

    def low(x):
        return np.asarray(x, np.float32).astype(KINDS[dtype]).astype(np.float32)

    table, w, bias, decay = (arrays[name] for name in ("table", "w", "bias", "decay"))
    x = np.linspace(-1, 1, 4, dtype=np.float32)
    e = low(low(low(table[3]) @ low(w)) + low(bias))
    g = low(low(1 / (1 + np.exp(-e))) * e)
    x_next = x * decay + g
    n = np.exp(x_next - x_next.max()) / np.exp(x_next - x_next.max()).sum()
    got = run(derived, i=3, x=x)
    np.testing.assert_allclose(got["x_next"], x_next, rtol=1e-6)
    np.testing.assert_allclose(got["y"], low(low(n) @ low(w)), rtol=2 * float(ml_dtypes.finfo(KINDS[dtype]).eps))
    assert np.array_equal(got["y"], low(got["y"]))
    # In float32 throughout the answer is another one.
    plain = run(sample(graph), i=3, x=x)
    assert np.abs(plain["x_next"] - got["x_next"]).max() > 1e-5


def test_a_form_that_lost_a_node_is_no_form(graph):
    from neurocompile.upcast import check

    model = sample(graph)
    typed(model, "bf16")
    infer(model)
    derived = upcast(model)
    sigmoid = next(node for node in derived.graph if node.op_type == "Sigmoid")
    ir.convenience.replace_all_uses_with(sigmoid.outputs[0], sigmoid.inputs[0])
    derived.graph.remove(sigmoid)
    results = sum(precision(node) == "bf16" for node in model.graph)
    with pytest.raises(InternalError, match="lost"):
        check(model, derived, results)


def test_a_weight_that_fp16_cannot_hold_is_refused(graph):
    model = graph("stage (float[2] x) => (float[2] y) { y = MatMul (x, w) }", w=np.full((2, 2), 1e5, np.float32))
    with pytest.raises(UserError, match=r"w of stage 'stage' reaches 1\.0e\+05.*bf16 or fp32"):
        typed(model, "fp16")
    again = graph("stage (float[2] x) => (float[2] y) { y = MatMul (x, w) }", w=np.full((2, 2), 1e5, np.float32))
    typed(again, "bf16")


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_in_plain_operators(graph, run, approximate):
    text = f'stage (float[9] x) => (float[9] y) {{ y = Gelu <approximate = "{approximate}"> (x) }}'
    x = np.linspace(-4, 4, 9, dtype=np.float32)
    model = graph(text)
    expand_gelu(model)
    assert all(node.op_type != "Gelu" for node in model.graph)
    np.testing.assert_allclose(run(model, x=x)["y"], run(graph(text), x=x)["y"], atol=1e-6)
