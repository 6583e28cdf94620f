"""Pass tabulate: it finds, in models it has never seen, what one small index determines; and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neurocompile.capture import capture_module
from neurocompile.passes.hoist import hoist
from neurocompile.passes.tabulate import tabulate
from runtime.program import TensorSpec

V = 13
INDEX = {"k": TensorSpec("k", "int64", (), (0, V))}
RNG = np.random.default_rng(1)
TABLE = RNG.normal(size=(V, 4)).astype(np.float32)
W = RNG.normal(size=(4, 6)).astype(np.float32)


class Invented(nn.Module):
    """A made-up model: an index through embedding, network and norm; a second input meets it only afterwards.

    Three values of three shapes leave the region of the index: `h` (5,), `m` (2, 3) and, as an output itself, a sum ().
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(V, 7)
        self.body = nn.Sequential(nn.Linear(7, 9), nn.GELU(), nn.Linear(9, 5), nn.LayerNorm(5))
        self.matrix = nn.Linear(5, 6)

    def forward(self, k, x):
        """The index selects from `x` too; no table can hold what, but which one it is makes a second table."""
        h = self.body(self.embedding(k))
        m = self.matrix(h).reshape(2, 3).softmax(0)
        return h * x, m @ x[:3], (h * h).sum(), x[k.clamp(max=4)] * 2.0


@pytest.fixture(scope="module")
def invented():
    examples = [torch.tensor(0), torch.zeros(5)]
    model = capture_module(Invented(), "invented", examples, ["k", "x"], ["scaled", "mapped", "norm", "picked"])
    hoist(model)
    return model


def test_a_model_it_has_never_seen(invented, run, kinds):
    model = invented.clone()
    changes = tabulate(model, INDEX)
    assert [change.what.split("table ")[1].split("),")[0] for change in changes] == [f"({V}, 12", f"({V}, 1"]
    left = kinds(model)
    assert not set(left) & {"Gelu", "LayerNormalization", "Softmax", "Exp", "Erf", "Sqrt"}
    assert sum(kind in ("MatMul", "Gemm") for kind in left) == 1
    x = RNG.normal(size=5)
    for k in range(V):
        before, after = run(invented, k=k, x=x), run(model, k=k, x=x)
        for name, value in before.items():
            np.testing.assert_allclose(after[name], value, rtol=1e-6, atol=1e-7, err_msg=f"{name} at {k}")
        with torch.no_grad():
            wanted = Invented().double()(torch.tensor(k), torch.tensor(x))
        for value, reference in zip(after.values(), wanted, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-6)
    # A table is no reason for another table.
    assert tabulate(model, INDEX) == []


@pytest.mark.parametrize("spec", [None, TensorSpec("k", "int64"), TensorSpec("k", "int64", (), (1, V))])
def test_not_without_a_domain_that_begins_at_zero(invented, spec):
    model = invented.clone()
    assert tabulate(model, {"k": spec} if spec else {}) == []
    assert len(model.graph) == len(invented.graph)


def test_a_limit_in_bytes(invented):
    for limit, made in ((V * 12 * 4, 2), (V * 12 * 4 - 1, 1), (V * 8 - 1, 0)):
        assert len(tabulate(invented.clone(), INDEX, limit)) == made


class State(nn.Module):
    """A second input reaches the norm: only the embedding's square is the index's own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(V, 4), nn.LayerNorm(4)

    def forward(self, k, state):
        """The new state."""
        return (self.norm(self.embedding(k) ** 2 + state),)


def test_not_where_a_state_reaches_the_region(run, kinds):
    model = capture_module(State(), "state", [torch.tensor(0), torch.zeros(4)], ["k", "state"], ["state_next"])
    hoist(model)
    [change] = tabulate(model, INDEX)
    assert f"table ({V}, 4)" in change.what
    assert "LayerNormalization" in kinds(model)
    states = RNG.normal(size=(2, 4))
    first, second = (run(model, k=3, state=state)["state_next"] for state in states)
    assert not np.allclose(first, second)


MLP = "e = Gather(table, k)\n a = MatMul(e, w)\n h = Tanh(a)"


def test_bits_are_the_same(graph, run):
    text = f"g (int64 k, float[6] x) => (float[6] y) {{ {MLP}\n y = Add(h, x) }}"
    before, after = graph(text, table=TABLE, w=W), graph(text, table=TABLE, w=W)
    assert len(tabulate(after, INDEX)) == 1
    for k in range(V):
        np.testing.assert_array_equal(run(after, k=k, x=np.zeros(6))["y"], run(before, k=k, x=np.zeros(6))["y"])


def test_an_output_of_the_graph_is_tabulated_itself(graph, run, kinds):
    """Also where the graph needs the value again, and with the index in 32 bits."""
    text = f"g (int32 k, float[6] x) => (float[6] h, float[6] y, float[4] e) {{ {MLP}\n y = Add(h, x) }}"
    before, after = graph(text, table=TABLE, w=W), graph(text, table=TABLE, w=W)
    assert len(tabulate(after, INDEX)) == 1
    assert "Tanh" not in kinds(after)
    assert [output.name for output in after.graph.outputs] == ["h", "y", "e"]
    for k in range(V):
        wanted, got = run(before, k=k, x=np.ones(6)), run(after, k=k, x=np.ones(6))
        for name in wanted:
            np.testing.assert_array_equal(got[name], wanted[name])


def test_values_of_two_types_make_two_tables(graph, run, kinds):
    text = """g (int64 k, float[4] x) => (float[4] y, int64 z)
    { e = Gather(table, k)\n h = Exp(e)\n y = Mul(h, x)\n square = Mul(k, k)\n z = Sub(square, one) }"""
    constants = {"table": TABLE, "one": np.array(1)}
    model = graph(text, **constants)
    assert {change.what.split("table ")[1].split(",")[0] for change in tabulate(model, INDEX)} == {f"({V}"}
    assert not set(kinds(model)) & {"Exp", "Sub"}
    for k in range(V):
        answer = run(model, k=k, x=np.ones(4))
        assert answer["z"] == k * k - 1
        np.testing.assert_allclose(answer["y"], np.exp(TABLE[k]), rtol=1e-6)


def test_two_indices_make_a_table_each(graph, run, kinds):
    text = """g (int64 k, int64 j, float[4] x) => (float[4] y)
    { e = Gather(table, k)\n h = Exp(e)\n f = Gather(table, j)\n g = Neg(f)\n s = Add(h, g)\n y = Add(s, x) }"""
    model = graph(text, table=TABLE)
    assert len(tabulate(model, {**INDEX, "j": TensorSpec("j", "int64", (), (0, 5))})) == 2
    assert sorted(kinds(model)) == ["Add", "Add", "Gather", "Gather"]
    np.testing.assert_allclose(run(model, k=12, j=4, x=np.zeros(4))["y"], np.exp(TABLE[12]) - TABLE[4], rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "g (int64 k, float[4] x) => (float[4] y) { e = Gather(table, k)\n y = Add(e, x) }",
        "g (int64 k) => (float[4] y) { y = Gather(table, k) }",
        "g (int64 k, float[4] x) => (float[2, 2] y) { e = Gather(table, k)\n r = Add(e, x)\n y = Reshape(r, two) }",
        "g (int64 k) => (float[2, 2] y) { e = Gather(table, k)\n y = Reshape(e, two) }",
        "g (int64 k, float[4] x) => (float[4] y) { f = Cast <to = 1> (k)\n y = Mul(f, x) }",
    ],
)
def test_not_where_only_data_moves(graph, text):
    model = graph(text, table=TABLE, two=np.array([2, 2]))
    before = len(model.graph)
    assert tabulate(model, INDEX) == []
    assert len(model.graph) == before


@pytest.mark.parametrize("shape", ["1", "2, 3"])
def test_not_for_an_index_of_rank(graph, shape):
    model = graph(
        f"""g (int64[{shape}] k, float[4] x) => (float[{shape}, 4] y)
        {{ e = Gather(table, k)\n h = Exp(e)\n y = Add(h, x) }}""",
        table=TABLE,
    )
    assert tabulate(model, INDEX) == []


def test_not_for_an_input_that_is_no_integer(graph):
    model = graph("g (float k, float[4] x) => (float[4] y) { e = Exp(k)\n h = Neg(e)\n y = Mul(h, x) }")
    assert tabulate(model, INDEX) == []


@pytest.mark.parametrize(
    "noise", ["n = RandomNormal <shape = [4]> ()", "n = RandomNormalLike(e)", "n = Dropout(e, half, on)"]
)
def test_not_on_random_operators(graph, kinds, noise):
    text = f"g (int64 k) => (float[4] y) {{ e = Gather(table, k)\n {noise}\n y = Mul(e, n) }}"
    model = graph(text, table=TABLE, half=np.float32(0.5), on=np.array(True))
    assert tabulate(model, INDEX) == []
    assert "Mul" in kinds(model)


def test_not_with_a_second_input_that_callers_may_override(graph, kinds):
    text = "g (int64 k, float[4] w = {1, 1, 1, 1}) => (float[4] y) { e = Gather(table, k)\n y = Mul(e, w) }"
    model = graph(text, table=TABLE)
    assert tabulate(model, INDEX) == []
    assert kinds(model) == ["Gather", "Mul"]


def test_constants_need_not_be_hoisted_first(graph, run, kinds):
    text = "g (int64 k, float[4] x) => (float[4] y) { s = Exp(table)\n e = Gather(s, k)\n h = Tanh(e)\n y = Mul(h, x) }"
    model = graph(text, table=TABLE)
    assert len(tabulate(model, INDEX)) == 1
    assert kinds(model) == ["Gather", "Mul"]
    np.testing.assert_allclose(run(model, k=5, x=np.ones(4))["y"], np.tanh(np.exp(TABLE[5])), rtol=1e-6)
