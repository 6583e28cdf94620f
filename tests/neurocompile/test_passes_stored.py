"""Pass *stored*: weights that are numbers of a lower precision are stored in it, and nothing else changes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from neurocompile.passes.stored import SMALLEST, stored

KINDS = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16}


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_exact_weights_are_narrowed_and_the_rest_stays(graph, run, dtype):
    rng = np.random.default_rng(0)
    rounded = rng.normal(size=(8, 8)).astype(KINDS[dtype]).astype(np.float32)
    other = rng.normal(size=(8, 8)).astype(np.float32)
    text = """stage (float[8] x) => (float[8] y) {
        a = MatMul (x, w)
        b = MatMul (a, v)
        c = Add (b, small)
        y = Mul (c, w0)
    }"""
    constants = {"w": rounded, "v": other, "small": np.full(SMALLEST - 8, 0.5, np.float32), "w0": np.float32(2)}
    model = graph(text, **constants)
    x = rng.normal(size=8)
    before = run(model, x=x)["y"]
    [change] = stored(model, dtype)
    assert change.what == f"1 weights as {dtype}"
    np.testing.assert_array_equal(run(model, x=x)["y"], before)
    kinds = {name: str(value.dtype) for name, value in model.graph.initializers.items()}
    assert kinds["w/stored"] == {"bf16": "BFLOAT16", "fp16": "FLOAT16"}[dtype]
    assert kinds["v"] == kinds["small"] == "FLOAT"
    assert "w" not in kinds


def test_it_does_not_fire_where_a_number_would_change(graph):
    weight = np.ones((4, 8), np.float32)
    weight[3, 3] = 1 + 2**-9  # one bit more than bf16 has
    model = graph("stage (float[4] x) => (float[8] y) { y = MatMul (x, w) }", w=weight)
    assert stored(model, "bf16") == []
    beyond = graph("stage (float[4] x) => (float[8] y) { y = MatMul (x, w) }", w=np.full((4, 8), 1e6, np.float32))
    assert stored(beyond, "fp16") == []
    assert set(beyond.graph.initializers) == {"w"}
