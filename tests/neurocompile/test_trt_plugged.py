"""Graphs with plugins in them: which op nodes become plugins, and what TensorRT's parser is to find there."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest

pytest.importorskip("triton", reason="Triton is published for Linux only")

from neurocompile.graph_program import GraphProgram
from neurocompile.ops import attach_functions
from neurocompile.passes.native import infer
from neurocompile.targets import find_target
from neurocompile.targets.trt.coverage import coverage, show
from neurocompile.targets.trt.graphs import typed_graphs
from neurocompile.targets.trt.plugged import TYPES, choose, compiled, place, plug


def attention(width: int) -> list[list[int]]:
    return [[1, 100, 2, width], *[[1, 100, 1, width]] * 2, [1, 100, 2]]


def neurons(*decay: int) -> list[list[int]]:
    return [[8, 3, 20], list(decay), [3, 20]]


PROBLEMS = {
    "scan in one launch": ("DiagonalScan", [[1, 20, 48]] * 4 + [[1, 48]] * 2, "fp32"),
    "scan in three launches": ("DiagonalScan", [[1, 256, 48]] * 4 + [[1, 48]] * 2, "fp32"),
    "forgetting attention": ("ForgettingAttention", attention(32), "fp16"),
    "gated attention": ("GatedLinearAttention", [*attention(32), [1, 2, 32, 32]], "fp16"),
    "neurons": ("LIF", neurons(1), "fp32"),
}

OUTPUTS = {
    "DiagonalScan": lambda shapes: [shapes[2]] * 2,
    "ForgettingAttention": lambda shapes: [shapes[0]],
    "GatedLinearAttention": lambda shapes: [[*shapes[0][:3], shapes[2][3]], shapes[4]],
    "LIF": lambda shapes: [shapes[0], shapes[2]],
}


def program_of(op: str, shapes: list[list[int]]) -> GraphProgram:
    """A program of one graph: every input of the op is a product, and its outputs are the graph's."""
    names = [f"i{n}" for n in range(len(shapes))]
    inputs = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)
    ]
    made = OUTPUTS[op](shapes)
    outputs = [onnx.helper.make_tensor_value_info(f"o{n}", onnx.TensorProto.FLOAT, s) for n, s in enumerate(made)]
    weights = [
        onnx.numpy_helper.from_array(np.eye(shape[-1], dtype=np.float32), f"w{n}") for n, shape in enumerate(shapes)
    ]
    nodes = [
        onnx.helper.make_node("MatMul", [name, f"w{n}"], [f"m{n}"], name=f"product{n}") for n, name in enumerate(names)
    ]
    products = [f"m{n}" for n in range(len(names))]
    nodes.append(
        onnx.helper.make_node(op, products, [value.name for value in outputs], domain="neurocompile", name="op")
    )
    graph = onnx.helper.make_graph(nodes, "stage", inputs, outputs, weights)
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("neurocompile", 1)]
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))
    attach_functions(model)
    infer(model)
    return GraphProgram(None, {"stage": model})


def upstream(value: ir.Value) -> list[ir.Value]:
    """What a cast converts."""
    producer = value.producer()
    return [producer.inputs[0]] if producer is not None and producer.op_type == "Cast" else []


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("kind", ["aot", "cpp"])
def test_a_graph_gets_its_plugins(problem, kind):
    op, shapes, dtype = PROBLEMS[problem]
    target = find_target(f"trt-{dtype}@sm87", "10", plugins=kind)
    program = program_of(op, shapes)
    [placed] = place(program, target, choose(target))
    models, _ = typed_graphs(program, target.dtype, "10", frozenset({("stage", "op")}))
    plugins = compiled(placed, 87, kind)
    plug(models["stage"], {"op": plugins}, kind)
    nodes = [node for node in models["stage"].graph if node.domain]
    assert len(nodes) == (len(placed.plan.launches) if kind == "aot" else 1)
    made = {}
    for node, part in zip(nodes, plugins.parts, strict=True):
        for name, value in zip(part.inputs, node.inputs, strict=True):
            # What an earlier plugin made, or the product that is the op's input of that place, converted or not.
            if name in made:
                assert value is made[name]
            else:
                number = [tensor.name for tensor in plugins.whole.inputs].index(name)
                assert f"m{number}" in {each.name.partition("/")[0] for each in (value, *upstream(value))}
        made |= dict(zip(part.outputs, node.outputs, strict=True))
        assert (node.op_type, len(node.outputs)) == (part.image.name, len(part.image.outputs))
        assert [value.dtype for value in node.inputs] == [TYPES[tensor.dtype] for tensor in part.image.inputs]
        assert {name: each.value for name, each in node.attributes.items()} == {
            "plugin_namespace": "neurocompile",
            "plugin_version": "1",
            **({"aot": 1} if kind == "aot" else {}),
        }
    casts = [node for node in models["stage"].graph if node.op_type == "Cast"]
    if dtype == "fp16":  # What is multiplied in half precision reaches the plugin as it is.
        producers = {value.producer().op_type for value in nodes[-1].inputs[:3] if value.producer()}
        assert "Cast" not in producers
        assert casts
    proto = ir.to_proto(models["stage"])
    onnx.checker.check_model(proto, full_check=True)
    assert [value.name for value in proto.graph.output] == [f"o{n}" for n in range(len(OUTPUTS[op](shapes)))]


@pytest.mark.parametrize(
    ("op", "shapes", "reason"),
    [
        ("ForgettingAttention", attention(160), "heads have 160 channels, and the kernel takes 128"),
        (
            "GatedLinearAttention",
            [*attention(160), [1, 2, 160, 160]],
            "heads have 160 channels, and the kernel takes 128",
        ),
        ("LIF", neurons(3, 1), r"its decay .3, 1. is broadcast to .8, 3, 20. along some axes only"),
    ],
)
def test_what_has_no_plugin_stays_native_and_says_why(op, shapes, reason):
    target = find_target("trt-fp32@sm87", "10", plugins="aot")
    [placed] = place(program_of(op, shapes), target, "aot")
    assert placed.plan is None
    assert re.fullmatch(reason, placed.reason)
    models, _ = typed_graphs(program_of(op, shapes), "fp32", "10")
    table = coverage(models, [placed])
    assert table["stage"]["ops"] == [{"node": "op", "op": op, "by": f"native layers ({placed.reason})"}]
    assert placed.reason in show(table, "trt-fp32@sm87", "10")
