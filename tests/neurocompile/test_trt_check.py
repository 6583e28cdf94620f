"""TensorRT for RTX reads and builds what is exported for TensorRT; the runtime calls only what its interface has."""

from __future__ import annotations

import re
import subprocess
import sys

import onnx_ir as ir
import pytest

from models.event2vec.causal.config import CausalConfig
from models.event2vec.causal.network import CausalEvent2Vec
from neurocompile.capture import capture
from neurocompile.passes import run_passes
from neurocompile.targets import find_target
from neurocompile.targets.trt import refuse, remaining, rtx
from neurocompile.targets.trt.graphs import typed_graphs
from neurocompile.targets.trt.versions import version_of
from runtime.errors import UserError
from runtime.front_ends import TokenDt

needs_rtx = pytest.mark.skipif(bool(rtx.obstacle()), reason=rtx.obstacle())


@needs_rtx
@pytest.mark.parametrize(
    ("dtype", "tensorrt"),
    [
        ("bf16", "10.3"),
        pytest.param("fp32", "11", marks=pytest.mark.slow),
        pytest.param("bf16", "11", marks=pytest.mark.slow),
        pytest.param("fp16", "11", marks=pytest.mark.slow),
    ],
)
def test_every_graph_is_read_and_built(captured, dtype, tensorrt):
    program, _ = run_passes(captured("two_stages"))
    models, _ = typed_graphs(program, dtype, tensorrt)
    assert set(models) == set(program.graphs)
    for stage, model in models.items():
        found = rtx.check(stage, ir.to_proto(model).SerializeToString())
        assert found["capabilities"] == [86, 89, 120]
        assert found["layers"] > 0
        assert found["bytes"] > 0


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("attention", ["gated_linear", "forgetting_causal"])
def test_a_causal_event2vec_is_read_and_built(attention):
    config = CausalConfig(2, 34, 34, 16, 16, 2, 2, 3, attention=attention, memory=16, pool_every_layer=1)
    front_end = TokenDt("linear", 34, 34, "previous", 2 * 34 * 34)
    program, _ = run_passes(capture(CausalEvent2Vec(config).eval().stream_program(front_end, ())))
    models, _ = typed_graphs(program, "fp16", "11")
    for stage, model in models.items():
        assert rtx.check(stage, ir.to_proto(model).SerializeToString())["layers"] > 0


@needs_rtx
def test_a_graph_of_mixed_types_is_refused_in_one_sentence(graph):
    model = graph("stage (float[4] x, float16[4] y) => (float[4] z) { z = Add (x, y) }")
    with pytest.raises(UserError, match=r"cannot read the graph of stage 'mixed'.*") as caught:
        rtx.check("mixed", ir.to_proto(model).SerializeToString())
    assert "\n" not in str(caught.value)


@needs_rtx
def test_the_interface_that_the_runtime_calls():
    """TensorRT 11 and TensorRT for RTX have one interface; in a process of its own, for it leaves threads behind."""
    from pathlib import Path

    from runtime.backends import tensorrt

    used = set(re.findall(r"(?:engine|context|_runtime|trt)\.(\w+)", Path(tensorrt.__file__).read_text()))
    used -= {"seen"}
    assert {"execute_async_v3", "deserialize_cuda_engine", "get_tensor_shape", "set_tensor_address"} <= used
    code = f"""
import tensorrt_rtx as trt
places = (trt, trt.Runtime, trt.ICudaEngine, trt.IExecutionContext)
print([name for name in {sorted(used)!r} if not any(hasattr(place, name) for place in places)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_devices_and_versions():
    for text, tensorrt, wanted in (
        ("trt-bf16", None, "11"),
        ("trt-bf16@jetson-orin", None, "10.3"),
        ("trt-bf16@jetson-orin", "11", "11"),
        ("trt-fp16@sm75", "10", "10"),
    ):
        target = find_target(text, tensorrt)
        refuse(target)
        assert version_of(target) == wanted
        assert f"TensorRT {wanted}" in remaining(target)
    assert "a jetson-orin with an sm_87 GPU" in remaining(find_target("trt-bf16@jetson-orin"))


@pytest.mark.parametrize(
    ("text", "tensorrt", "message"),
    [
        ("trt-fp8@sm86", None, "sm_86 cannot compute in fp8, sm_89 was the first; export for trt-int8@sm86"),
        ("trt-bf16@sm75", None, "sm_75 cannot compute in bfloat16; export for trt-fp16@sm75"),
        ("trt-bf16@sm88", None, "no device 'sm88'"),
        ("trt-bf16@x86-64-v3", None, "no device 'x86-64-v3'"),
        ("trt-bf16", "9", "--tensorrt 9 is none of 10.3, 10, 11"),
        ("onnx-fp32", "11", "--tensorrt is for targets of TensorRT"),
    ],
)
def test_what_does_not_exist_is_refused(text, tensorrt, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        refuse(find_target(text, tensorrt))
    assert "\n" not in str(caught.value)
