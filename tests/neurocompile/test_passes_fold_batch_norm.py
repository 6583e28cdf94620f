"""Pass fold batch norm: the affine map goes into a neighbour, or becomes two nodes; in training it stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neurocompile.capture import capture_module
from neurocompile.passes.fold_batch_norm import fold_batch_norm
from neurocompile.passes.hoist import hoist

RNG = np.random.default_rng(2)
C = 6


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


STATISTICS = {"scale": normal(C), "bias": normal(C), "mean": normal(C), "var": abs(normal(C)) + 0.1}
BN = "BatchNormalization <epsilon = 0.001> ({}, scale, bias, mean, var)"


def check(graph, run, text, x, *left, **constants):
    """Folds, and demands the operators `left` and the same answer; returns the changes."""
    constants = STATISTICS | constants
    model = graph(text, **constants)
    wanted = run(model, x=x)
    changes = fold_batch_norm(model)
    assert sorted(node.op_type for node in model.graph) == sorted(left)
    got = run(model, x=x)
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-5)
    return changes


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("bias", ["", ", b"])
def test_into_a_convolution(graph, run, group, bias):
    text = f"""g (float[1, 4, 5, 5] x) => (float[1, {C}, 3, 3] z)
    {{ c = Conv <group = {group}> (x, w{bias})\n y = {BN.format("c")}\n z = Relu(y) }}"""
    w = normal(C, 4 // group, 3, 3)
    [change] = check(graph, run, text, normal(1, 4, 5, 5), "Conv", "Relu", w=w, b=normal(C))
    assert change.rule == "fold_batch_norm"


@pytest.mark.parametrize(
    ("operands", "attributes", "shapes"),
    [
        ("x, w", "", {"w": (4, C)}),
        ("x, w, b", "", {"w": (4, C), "b": (C,)}),
        ("x, w, b", "<transB = 1>", {"w": (C, 4), "b": (1, C)}),
        ("x, w, b", "<transB = 1>", {"w": (C, 4), "b": ()}),
    ],
)
def test_into_a_gemm(graph, run, operands, attributes, shapes):
    text = f"g (float[3, 4] x) => (float[3, {C}] y) {{ c = Gemm {attributes} ({operands})\n y = {BN.format('c')} }}"
    constants = {name: normal(*shape) for name, shape in shapes.items()}
    check(graph, run, text, normal(3, 4), "Gemm", **constants)


def test_into_the_product_before_it(graph, run):
    text = f"g (float[3, 4] x) => (float[3, {C}] y) {{ c = MatMul(x, w)\n y = {BN.format('c')} }}"
    check(graph, run, text, normal(3, 4), "MatMul", "Add", w=normal(4, C))


@pytest.mark.parametrize(
    "producer",
    [
        "Gemm <alpha = 2.0> (x, w, b)",
        "Gemm <beta = 0.5> (x, w, b)",
        "Gemm(x, v)",
        "Gemm(x, w, u)",
        "MatMul(x, v)",
        "Relu(d)",
    ],
)
def test_not_into_a_producer_that_cannot_take_it(graph, run, producer):
    """Scaled, with a weight or bias that is no constant, or of another kind: two elementwise nodes."""
    text = f"""g (float[3, 4] x) => (float[3, {C}] y)
    {{ d = MatMul(x, w)\n t = ReduceSum <keepdims = 0> (x)\n v = Mul(w, t)\n u = Mul(b, t)
       c = {producer}\n y = {BN.format("c")} }}"""
    model = graph(text, **STATISTICS, w=normal(4, C), b=normal(C))
    x = normal(3, 4)
    wanted = run(model, x=x)["y"]
    [change] = fold_batch_norm(model)
    assert change.what.endswith("scale and shift")
    np.testing.assert_allclose(run(model, x=x)["y"], wanted, rtol=1e-5, atol=1e-5)


def test_not_into_a_producer_that_others_use(graph, run):
    text = f"g (float[3, 4] x) => (float[3, {C}] z) {{ c = Gemm(x, w)\n y = {BN.format('c')}\n z = Add(c, y) }}"
    check(graph, run, text, normal(3, 4), "Gemm", "Mul", "Add", "Add", w=normal(4, C))


def test_not_into_a_producer_that_is_an_output(graph, run):
    text = f"g (float[3, 4] x) => (float[3, {C}] c, float[3, {C}] y) {{ c = Gemm(x, w)\n y = {BN.format('c')} }}"
    check(graph, run, text, normal(3, 4), "Gemm", "Mul", "Add", w=normal(4, C))


def test_into_every_product_after_it(graph, run):
    text = f"""g (float[3, {C}] x) => (float[3, 4] p, float[3, 2] q)
    {{ y = {BN.format("x")}\n p = MatMul(y, a)\n m = MatMul(y, b)\n q = Relu(m) }}"""
    [change] = check(
        graph, run, text, normal(3, C), "MatMul", "Add", "MatMul", "Add", "Relu", a=normal(C, 4), b=normal(C, 2)
    )
    assert "folded into" in change.what


def test_mixed_users_get_scale_and_shift(graph, run):
    text = f"""g (float[3, {C}] x) => (float[3, 4] p, float[3, {C}] q)
    {{ y = {BN.format("x")}\n p = MatMul(y, a)\n q = Relu(y) }}"""
    check(graph, run, text, normal(3, C), "Mul", "Add", "MatMul", "Relu", a=normal(C, 4))


@pytest.mark.parametrize("shape", [(3, C), (2, C, 5), (2, C, 4, 3)])
def test_an_output_by_itself_of_any_rank(graph, run, shape):
    dims = ", ".join(map(str, shape))
    check(
        graph, run, f"g (float[{dims}] x) => (float[{dims}] y) {{ y = {BN.format('x')} }}", normal(*shape), "Mul", "Add"
    )


def test_not_into_a_product_over_another_axis(graph, run):
    """Of three axes the features are the second, but a product contracts the last."""
    text = f"g (float[2, {C}, {C}] x) => (float[2, {C}, 4] p) {{ y = {BN.format('x')}\n p = MatMul(y, a) }}"
    check(graph, run, text, normal(2, C, C), "Mul", "Add", "MatMul", a=normal(C, 4))


def test_one_after_another(graph, run):
    text = f"""g (float[3, 4] x) => (float[3, {C}] z)
    {{ c = Gemm(x, w)\n y = {BN.format("c")}\n z = {BN.format("y")} }}"""
    assert len(check(graph, run, text, normal(3, 4), "Gemm", w=normal(4, C))) == 2


def test_not_in_training(graph, kinds):
    text = f"""g (float[3, {C}] x) => (float[3, {C}] y, float[{C}] m, float[{C}] v)
    {{ y, m, v = BatchNormalization <training_mode = 1> (x, scale, bias, mean, var) }}"""
    model = graph(text, **STATISTICS)
    assert fold_batch_norm(model) == []
    assert kinds(model) == ["BatchNormalization"]


@pytest.mark.parametrize("input_of_the_graph", ["scale", "bias", "mean", "var"])
def test_not_on_statistics_that_are_no_constants(graph, kinds, input_of_the_graph):
    text = f"g (float[3, {C}] x, float[{C}] {input_of_the_graph}) => (float[3, {C}] y) {{ y = {BN.format('x')} }}"
    for constants in ({k: v for k, v in STATISTICS.items() if k != input_of_the_graph}, STATISTICS):
        model = graph(text, **constants)
        assert fold_batch_norm(model) == []
        assert kinds(model) == ["BatchNormalization"]


def test_not_on_statistics_that_are_computed(graph, kinds):
    text = f"""g (float[3, {C}] x) => (float[3, {C}] y)
    {{ var = ReduceMean <keepdims = 0> (x, axes)\n y = {BN.format("x")} }}"""
    constants = {k: v for k, v in STATISTICS.items() if k != "var"}
    model = graph(text, axes=np.array([0]), **constants)
    assert fold_batch_norm(model) == []
    assert "BatchNormalization" in kinds(model)


def test_not_on_a_value_of_unknown_rank(graph, kinds):
    model = graph(
        f"g (float[2, {C}, 3] x) => (float[2, {C}, 3] y) {{ r = Relu(x)\n y = {BN.format('r')} }}", **STATISTICS
    )
    model.graph[0].outputs[0].shape = None
    assert fold_batch_norm(model) == []
    assert kinds(model) == ["Relu", "BatchNormalization"]


class Vector(nn.Module):
    """Batch norm of one vector, as a step of a model sees it, before products, and mixed."""

    def __init__(self, mixed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.mixed = nn.BatchNorm1d(C), mixed
        self.first, self.second = nn.Linear(C, 4), nn.Linear(C, 3)
        for name in ("weight", "bias", "running_mean"):
            getattr(self.norm, name).data.normal_()
        self.norm.running_var.uniform_(0.1, 2)

    def forward(self, x):
        """The norm wants a batch axis, the step has none."""
        u = self.norm(x[None])[0]
        return self.first(u), self.second(u), *([u * x] if self.mixed else [])


@pytest.mark.parametrize("mixed", [False, True])
def test_the_step_of_a_torch_model(run, kinds, mixed):
    module = Vector(mixed).eval()
    model = capture_module(module, "vector", [torch.zeros(C)], ["x"], ["p", "q", "r"][: 2 + mixed])
    hoist(model)
    assert len(fold_batch_norm(model)) == 1
    left = set(kinds(model))
    assert "BatchNormalization" not in left
    assert not left & {"Unsqueeze", "Squeeze", "Gather"}
    assert ("Mul" in left) == mixed
    x = normal(C)
    with torch.no_grad():
        wanted = module.double()(torch.from_numpy(x).double())
    for value, reference in zip(run(model, x=x).values(), wanted, strict=True):
        np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-5)
