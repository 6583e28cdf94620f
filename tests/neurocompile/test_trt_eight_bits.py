"""Products with operands of 8 bits: the nodes, what they compute, which products stay out, and the yardstick."""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from neurocompile.calibration import Calibration, Inputs
from neurocompile.eight_bits import EightBits, choose, told
from neurocompile.passes.native import infer
from neurocompile.passes.quantised import quantised
from neurocompile.passes.typed import precision, typed
from neurocompile.products import find_products
from neurocompile.rounding import EightBitProducts
from neurocompile.targets import find_target
from neurocompile.targets.trt import refuse, rtx
from neurocompile.targets.trt.versions import least_capability, low_of
from neurocompile.upcast import check, upcast
from runtime.errors import InternalError, UserError

K, N, ROWS = 24, 20, 300
EIGHT = ("int8", "fp8")
LARGEST = {"int8": 127, "fp8": 448}


def nearest(values: np.ndarray, dtype: str) -> np.ndarray:
    """An independent definition: whole numbers with ties to even, or ml_dtypes' E4M3."""
    if dtype == "int8":
        return np.clip(np.rint(values), -128, 127)
    return np.clip(values, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float64)


@pytest.fixture
def stage(graph):
    """A vector through a product with bias and an activation, a second product, and a matrix through a Gemm."""
    rng = np.random.default_rng(0)
    return graph(
        f"""stage (float[{K}] x, float[4,{K}] rows) => (float[{N}] y, float[4,{N}] z, float[3] small) {{
            p = MatMul (x, w)
            b = Add (p, bias)
            y = Sigmoid (b)
            z = Gemm <transB = 1> (rows, turned, bias)
            small = MatMul (x, narrow)
        }}""",
        w=rng.normal(size=(K, N)).astype(np.float32),
        bias=rng.normal(size=N).astype(np.float32),
        turned=rng.normal(size=(N, K)).astype(np.float32),
        narrow=rng.normal(size=(K, 3)).astype(np.float32),
    )


def seen(model: ir.Model, spread: float = 1.0, seed: int = 1) -> tuple[Calibration, np.ndarray]:
    """A calibration on random inputs whose channels differ by up to `spread`."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(ROWS, K)) * np.geomspace(1, spread, K)
    inputs = Inputs(np.zeros(K), np.zeros((K, K)))
    inputs.add(rows)
    return Calibration({product.key: inputs for product in find_products("stage", model)}, {}), rows.astype(np.float32)


def rewritten(model: ir.Model, dtype: str, spread: float = 1.0) -> tuple[EightBits, np.ndarray]:
    calibration, rows = seen(model, spread)
    eight = choose({"stage": model}, calibration, dtype)
    quantised("stage", model, eight)
    infer(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return eight, rows


@pytest.mark.parametrize("dtype", EIGHT)
@pytest.mark.parametrize("spread", [1.0, 300.0])
def test_what_the_nodes_compute(stage, run, dtype, spread):
    keys = {p.node.name or p.node.outputs[0].name: p.key for p in find_products("stage", stage)}
    plain = {name: value.const_value.numpy() for name, value in stage.graph.initializers.items()}
    eight, rows = rewritten(stage, dtype, spread)
    assert Counter(node.op_type for node in stage.graph)["QuantizeLinear"] == 2
    got = run(upcast(stage), x=rows[0], rows=rows[1:5])
    for result, key, x in (("y", "p", rows[0]), ("z", "z", rows[1:5])):
        choice = eight.choices[keys[key]]
        equaliser = np.ones(K) if choice.equaliser is None else choice.equaliser
        assert set(np.log2(equaliser) % 1) == {0}
        weights = choice.numbers * choice.weight_scales * equaliser[:, None]
        wide = plain["w"] if key == "p" else plain["turned"].T
        rounded = nearest(rows * equaliser / choice.input_scale, dtype) * choice.input_scale / equaliser
        exact, off = rows @ wide, rounded @ weights - rows @ wide
        assert np.linalg.norm(off) / np.linalg.norm(exact) == pytest.approx(choice.error, rel=0.3)
        assert choice.input_scale * LARGEST[dtype] == pytest.approx(np.abs(rows * equaliser).max(), rel=1e-6)
        scaled = nearest((x * equaliser / np.float32(choice.input_scale)).astype(np.float32), dtype)
        wanted = scaled * choice.input_scale @ (choice.numbers * choice.weight_scales.astype(np.float64))
        wanted = wanted + plain["bias"]
        wanted = 1 / (1 + np.exp(-wanted.clip(-80))) if result == "y" else wanted
        np.testing.assert_allclose(got[result], wanted, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(got["small"], rows[0] @ plain["narrow"], rtol=1e-5, atol=1e-4 * spread)


@pytest.mark.parametrize("dtype", EIGHT)
def test_values_beyond_the_recording_are_cut_off(stage, run, dtype):
    eight, rows = rewritten(stage, dtype)
    choice = next(choice for choice in eight.choices.values() if not isinstance(choice, str))
    limit = choice.input_scale * LARGEST[dtype]
    edge, beyond = (run(upcast(stage), x=value * np.ones(K), rows=rows[:4])["y"] for value in (limit * 1.0001, 1e6))
    np.testing.assert_allclose(edge, beyond, rtol=1e-6)
    inside = run(upcast(stage), x=limit / 2 * np.ones(K), rows=rows[:4])["y"]
    assert np.abs(inside - edge).max() > 1e-3


def test_int8_in_stock_onnxruntime_is_the_same(stage, run):
    _, rows = rewritten(stage, "int8")
    ours, theirs = (run(model, x=rows[0], rows=rows[1:5]) for model in (upcast(stage), stage))
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", EIGHT)
def test_precision_of_every_node(stage, dtype):
    rewritten(stage, dtype)
    typed(stage, "bf16")
    infer(stage)
    onnx.checker.check_model(ir.to_proto(stage), full_check=True)
    found = {}
    for node in stage.graph:
        found.setdefault(node.op_type, set()).add(precision(node))
    assert found["QuantizeLinear"] == found["Gemm"] == {dtype}
    assert found["MatMul"] == {dtype, "bf16"}  # the narrow one stays as it would be in trt-bf16
    assert found["DequantizeLinear"] == found["Add"] == found["Squeeze"] == {"fp32"}
    assert found["Sigmoid"] == {"bf16"}
    kinds = {"int8": "INT8", "fp8": "FLOAT8E4M3FN"}
    stored = Counter(str(value.dtype) for value in stage.graph.initializers.values() if value.shape.rank() == 2)
    assert stored == {kinds[dtype]: 2, "BFLOAT16": 1}


def test_scales_of_weights(stage):
    eight, _ = rewritten(stage, "int8")
    scales = [v for name, v in stage.graph.initializers.items() if name.endswith("/scale") and v.shape.rank() == 1]
    assert [tuple(value.shape) for value in scales] == [(N,), (N,)]
    axes = [
        n.attributes["axis"].value for n in stage.graph if n.op_type == "DequantizeLinear" and "axis" in n.attributes
    ]
    assert axes == [1, 0]
    assert len(eight.choices) == 3


@pytest.mark.parametrize("dtype", EIGHT)
def test_products_that_stay_out(stage, graph, dtype):
    calibration, _ = seen(stage)
    eight = choose({"stage": stage}, calibration, dtype)
    text = told({"stage": stage}, eight)
    assert text.startswith(f"2 of 3 weighted products take operands in {dtype}; not:\n")
    assert "24 inputs and 3 outputs are fewer than 16" in text
    # All that matters is tiny beside one input that the weights ignore: in one scale it would vanish.
    w = np.zeros((K, N), np.float32)
    w[1:] = np.random.default_rng(0).normal(size=(K - 1, N))
    w[0] = 1e-6
    model = graph(f"stage (float[{K}] x) => (float[{N}] y) {{ y = MatMul (x, w) }}", w=w)
    [product] = find_products("stage", model)
    rows = np.random.default_rng(1).normal(size=(ROWS, K))
    rows[:, :] *= np.where(np.arange(ROWS) == 7, 1e6, 1)[:, None]  # one moment a million times the rest, everywhere
    inputs = Inputs(np.zeros(K), np.zeros((K, K)))
    inputs.add(rows)
    inputs.moments = rows[10:].T @ rows[10:]
    found = choose({"stage": model}, Calibration({product.key: inputs}, {}), dtype).choices[product.key]
    if dtype == "int8":
        assert "its error on the recording would be" in found
        changes = quantised("stage", model, EightBits(dtype, {product.key: found}))
        assert f"not in int8: {found}" in changes[0].what
        assert [node.op_type for node in model.graph] == ["MatMul"]
    else:  # floating point keeps its relative precision over nine powers of ten less than that
        assert not isinstance(found, str)


def test_an_equaliser_is_shared_by_products_of_one_input(graph):
    rng = np.random.default_rng(0)
    model = graph(
        f"stage (float[{K}] x) => (float[{N}] y, float[{N}] z) {{ y = MatMul (x, v)\n z = MatMul (x, w) }}",
        v=rng.normal(size=(K, N)).astype(np.float32),
        w=rng.normal(size=(K, N)).astype(np.float32),
    )
    eight, _ = rewritten(model, "int8", spread=500.0)
    assert all(choice.equaliser is not None for choice in eight.choices.values())
    kinds = Counter(node.op_type for node in model.graph)
    assert (kinds["Mul"], kinds["QuantizeLinear"], kinds["DequantizeLinear"], kinds["MatMul"]) == (1, 1, 3, 2)


def test_a_form_that_lost_a_rounding_is_no_form(stage):
    rewritten(stage, "int8")
    derived = upcast(stage)
    clip = next(node for node in derived.graph if node.op_type == "Clip")
    ir.convenience.replace_all_uses_with(clip.outputs[0], clip.inputs[0])
    derived.graph.remove(clip)
    with pytest.raises(InternalError, match="lost"):
        check(stage, derived, 0)


def test_a_zero_point_is_refused(stage):
    rewritten(stage, "int8")
    zero = next(value for name, value in stage.graph.initializers.items() if name.endswith("/zero"))
    zero.const_value = ir.Tensor(np.ones(zero.shape.numpy(), np.int8), name=zero.name)
    with pytest.raises(InternalError, match="has a zero point"):
        upcast(stage)


@pytest.mark.parametrize("dtype", EIGHT)
def test_the_yardstick_rounds_both_operands(dtype):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(K, N), nn.Linear(N, 3)).eval()
    x = torch.randn(5, K)
    first, second = module
    w, xs = first.weight.detach().double().numpy(), x.double().numpy()
    per = np.abs(w).max(1, keepdims=True) if dtype == "int8" else np.abs(w).max()
    own = np.abs(xs).max()
    rounded = [nearest(v / s * LARGEST[dtype], dtype) * s / LARGEST[dtype] for v, s in ((w, per), (xs, own))]
    hidden = rounded[1] @ rounded[0].T + first.bias.detach().double().numpy()
    hidden = torch.from_numpy(hidden).bfloat16().double().numpy()
    wanted = hidden @ second.weight.detach().bfloat16().double().numpy().T + second.bias.detach().double().numpy()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), EightBitProducts(dtype, torch.bfloat16):
        got = module(x).double().numpy()
        assert torch.isfinite(module(torch.zeros(2, K))).all()
    np.testing.assert_allclose(got, wanted, atol=2**-7 * np.abs(wanted).max())
    with torch.inference_mode():
        assert np.abs(module(x).double().numpy() - wanted).max() > 1e-3


needs_rtx = pytest.mark.skipif(bool(rtx.obstacle()), reason=rtx.obstacle())


@needs_rtx
@pytest.mark.parametrize(("dtype", "capabilities"), [("int8", (86, 89, 120)), ("fp8", (89, 120))])
def test_tensorrt_for_rtx_reads_and_builds_it(stage, dtype, capabilities):
    rewritten(stage, dtype, spread=300.0)
    typed(stage, "bf16")
    infer(stage)
    found = rtx.check("stage", ir.to_proto(stage).SerializeToString(), capabilities)
    assert found["layers"] > 10
    assert found["capabilities"] == list(capabilities)


def test_devices():
    for text, low, least in (
        ("trt-int8", "bf16", 80),
        ("trt-int8@jetson-orin", "bf16", 80),
        ("trt-int8@sm75", "fp16", None),
        ("trt-fp8@sm89", "bf16", 89),
        ("trt-fp8@jetson-thor", "bf16", 89),
        ("trt-fp16", "fp16", None),
    ):
        target = find_target(text)
        refuse(target)
        assert (low_of(target), least_capability(target)) == (low, least)
    for device, number in (("jetson-orin", 87), ("sm86", 86), ("sm75", 75)):
        with pytest.raises(
            UserError, match=f"sm_{number} cannot compute in fp8, sm_89 was the first; .*trt-int8@{device}"
        ):
            refuse(find_target(f"trt-fp8@{device}"))
