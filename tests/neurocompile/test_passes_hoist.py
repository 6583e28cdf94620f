"""Pass hoist: what depends on constants alone becomes one constant; nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from neurocompile.passes.hoist import hoist

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 4)).astype(np.float32)
S = RNG.normal(size=4).astype(np.float32)


def test_a_chain_of_constants_becomes_one_constant(graph, run, kinds):
    text = "g (float[3] x) => (float[4] y) { e = Exp(s)\n m = Mul(w, e)\n t = Neg(m)\n y = MatMul(x, t) }"
    before, after = graph(text, w=W, s=S), graph(text, w=W, s=S)
    changes = hoist(after)
    assert kinds(after) == ["MatMul"]
    assert [value.shape.numpy() for value in after.graph.initializers.values()] == [(3, 4)]
    assert len(changes) == 1
    assert "3 nodes" in changes[0].what
    x = RNG.normal(size=3)
    np.testing.assert_array_equal(run(after, x=x)["y"], run(before, x=x)["y"])


def test_one_constant_per_value_that_leaves_the_constants(graph, run, kinds):
    text = """g (float[4] x) => (float[4] y, float[4] z)
    { e = Exp(s)\n n = Neg(e)\n a = Mul(x, e)\n y = Add(a, n)\n z = Sub(x, n) }"""
    model = graph(text, s=S)
    assert len(hoist(model)) == 2
    assert kinds(model) == ["Mul", "Add", "Sub"]
    answer = run(model, x=np.ones(4))
    np.testing.assert_allclose(answer["y"], 0 * S, atol=1e-6)
    np.testing.assert_allclose(answer["z"], 1 + np.exp(S), rtol=1e-6)


def test_an_output_of_constants_alone_keeps_its_name(graph, run, kinds):
    model = graph("g (float[4] x) => (float[4] y, float[4] z) { e = Exp(s)\n y = Neg(e)\n z = Mul(x, y) }", s=S)
    assert len(hoist(model)) == 1
    assert sorted(kinds(model)) == ["Identity", "Mul"]
    answer = run(model, x=np.ones(4))
    np.testing.assert_allclose(answer["y"], -np.exp(S), rtol=1e-6)
    np.testing.assert_allclose(answer["z"], -np.exp(S), rtol=1e-6)
    # What it made is not made again.
    assert hoist(model) == []


@pytest.mark.parametrize("node", ["e = Exp(x)", "e = Mul(s, x)", "f = Exp(s)\n e = Where(c, f, x)"])
def test_not_on_what_an_input_reaches(graph, kinds, node):
    model = graph(f"g (float[4] x) => (float[4] y) {{ {node}\n y = Add(e, s) }}", s=S, c=np.array([True] * 4))
    hoist(model)
    assert "Add" in kinds(model)
    assert set(kinds(model)) & {"Exp", "Mul", "Where"}


def test_not_on_a_constant_that_callers_may_override(graph, run, kinds):
    text = "g (float[4] x, float[4] w = {1, 1, 1, 1}) => (float[4] y) { e = Exp(w)\n y = Add(x, e) }"
    model = graph(text)
    assert hoist(model) == []
    assert kinds(model) == ["Exp", "Add"]
    np.testing.assert_allclose(run(model, x=np.zeros(4), w=np.zeros(4))["y"], 1)


@pytest.mark.parametrize(
    "node",
    [
        "r = RandomNormal <shape = [4]> ()",
        "r = RandomUniform <shape = [4]> ()",
        "r = RandomNormalLike(s)",
        "r = RandomUniformLike(s)",
        "b = Bernoulli(s)\n r = Cast <to = 1> (b)",
        "r = Dropout(s, half, on)",
    ],
)
def test_not_on_random_operators(graph, kinds, node):
    text = f"g (float[4] x) => (float[4] y) {{ {node}\n e = Exp(r)\n y = Add(x, e) }}"
    model = graph(text, s=abs(S) / 4, half=np.float32(0.5), on=np.array(True))
    assert hoist(model) == []
    assert [kind for kind in kinds(model) if kind != "Cast"][1:] == ["Exp", "Add"]


def test_a_function_that_draws_stays_and_another_goes(graph, kinds):
    functions = """
    <domain: "made.up", opset_import: ["" : 20]> Dice (a) => (b) { c = RandomNormalLike(a)\n b = Add(a, c) }
    <domain: "made.up", opset_import: ["" : 20]> Twice (a) => (b) { b = Add(a, a) }"""
    text = "g (float[4] x) => (float[4] y) {{ e = made.up.{}(s)\n y = Add(x, e) }}"
    dice, twice = graph(text.format("Dice"), functions, s=S), graph(text.format("Twice"), functions, s=S)
    assert hoist(dice) == []
    assert kinds(dice) == ["Dice", "Add"]
    assert len(hoist(twice)) == 1
    assert kinds(twice) == ["Add"]
    assert len(twice.functions) == 0


def test_not_where_the_constant_would_blow_up(graph, run, kinds):
    """The expansion stays; what is computed before it goes."""
    text = """g (float[1] x) => (float[40000] y)
    { e = Exp(one)\n n = Neg(e)\n big = Expand(n, shape)\n y = Add(big, x) }"""
    model = graph(text, one=np.ones(1, np.float32), shape=np.array([40000]))
    assert len(hoist(model)) == 1
    assert kinds(model) == ["Expand", "Add"]
    assert sum(value.const_value.nbytes for value in model.graph.initializers.values()) < 100
    np.testing.assert_allclose(run(model, x=[1.0])["y"][:3], 1 - np.e, rtol=1e-6)


def test_a_blow_up_of_unstated_shape_is_found_by_its_value(graph, kinds):
    model = graph(
        "g (float[1] x) => (float[N] y) { big = Expand(one, shape)\n y = Add(big, x) }",
        one=np.ones(1, np.float32),
        shape=np.array([40000]),
    )
    for node in model.graph:
        node.outputs[0].shape = None
    assert hoist(model) == []
    assert kinds(model) == ["Expand", "Add"]


def test_a_moderate_expansion_is_hoisted(graph, kinds):
    model = graph(
        "g (float[1] x) => (float[100] y) { big = Expand(one, shape)\n y = Add(big, x) }",
        one=np.ones(1, np.float32),
        shape=np.array([100]),
    )
    assert len(hoist(model)) == 1
    assert kinds(model) == ["Add"]


def test_not_through_subgraphs(graph, kinds):
    text = """g (float[4] x) => (float[4] y)
    { e = If (yes) <then_branch = a () => (float[4] p) { p = Exp(s) },
                    else_branch = b () => (float[4] q) { q = Neg(s) }>
      y = Add(x, e) }"""
    model = graph(text, s=S, yes=np.array(True))
    assert hoist(model) == []
    assert kinds(model) == ["If", "Add"]


def test_constant_nodes_become_initializers(graph, run, kinds):
    model = graph("g (float[2] x) => (float[2] y) { c = Constant <value_floats = [1.0, 2.0]> ()\n y = Add(x, c) }")
    assert len(hoist(model)) == 1
    assert kinds(model) == ["Add"]
    np.testing.assert_array_equal(run(model, x=[0, 0])["y"], [1, 2])
