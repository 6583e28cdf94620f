"""Pass tabulate on an index (N,): what keeps its rows apart becomes a table, and what mixes them never does."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from neurocompile.capture import capture_module
from neurocompile.passes.hoist import hoist
from neurocompile.passes.tabulate import tabulate
from runtime.program import TensorSpec

V, N = 17, 6
INDEX = {"k": TensorSpec("k", "int64", (N,), (0, V))}
RNG = np.random.default_rng(1)


class Body(nn.Module):
    """Index -> coordinates -> perceptron with norms, in many of the forms that keep rows apart."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8, bias=False), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 5))
        self.table = nn.Embedding(V, 5)

    def forward(self, k):
        """(N,) -> (N, 5)."""
        x, y = (k % 4).float(), torch.div(k, 4, rounding_mode="floor").float()
        points = torch.stack((x * 0.5 - 1, y / 3, (x - y).clamp(min=0)), -1)
        h = self.net(points) + self.table(k)
        h = h * h.softmax(-1) + h.mean(-1, keepdim=True)
        return h.reshape(N, 5, 1).squeeze(-1)


class Around(nn.Module):
    """The body, then something of everything that is around it."""

    def __init__(self, after):
        super().__init__()
        self.body, self.after = Body(), after
        self.places = nn.Parameter(torch.randn(N, 5))

    def forward(self, k, x):
        """(N,), (N, 5) -> the body's rows, and what is made of them."""
        h = self.body(k)
        return h * x, self.after(self, h)


def fired(after, run):
    """The operators left and the changes, after both models gave the same on random input."""
    module = Around(after).eval()
    examples = [torch.zeros(N, dtype=torch.int64), torch.zeros(N, 5)]
    before = capture_module(module, "stage", examples, ["k", "x"], ["product", "made"])
    rewritten = ir.from_proto(ir.to_proto(before))
    hoist(rewritten)
    changes = tabulate(rewritten, INDEX)
    for _ in range(4):
        feeds = {"k": RNG.integers(0, V, N), "x": RNG.normal(size=(N, 5)).astype(np.float32)}
        one, two = run(before, **feeds), run(rewritten, **feeds)
        for name in one:
            # A row's place in a vector register may change its last bit.
            np.testing.assert_allclose(two[name], one[name], rtol=0, atol=2e-6 * np.abs(one[name]).max())
    return [node.op_type for node in rewritten.graph], changes


def test_rows_that_stay_apart_become_one_table(run):
    kinds, changes = fired(lambda self, h: (h + 1).exp(), run)
    assert kinds.count("Gather") == 1 and not {"LayerNormalization", "Gemm", "MatMul", "Mod"} & set(kinds)
    [change] = changes
    # The body's five columns, and the five of what is made of them.
    assert f"table ({V}, 10)" in change.what


MIXING = {
    "a sum over rows": (lambda self, h: h.sum(0), "ReduceSum"),
    "a running sum": (lambda self, h: h.cumsum(0), "CumSum"),
    "a softmax over rows": (lambda self, h: h.softmax(0), "Softmax"),
    "numbers that differ by row": (lambda self, h: h + self.places, "Add"),
    "rows among rows": (lambda self, h: torch.cat((h, h)), "Concat"),
    "rows as columns": (lambda self, h: h @ h.T, "MatMul"),
    "rows reversed": (lambda self, h: h.flip(0), "Slice"),
    "rows as channels": (lambda self, h: h.T * 2, "Transpose"),
    "a matrix from the left": (lambda self, h: self.places @ self.places.T @ h, "MatMul"),
    "rows of another number": (lambda self, h: h.reshape(2, 15).tanh(), "Reshape"),
    "rows shifted by an axis": (lambda self, h: h[None] * torch.ones(4, 1, 1), "Mul"),
}


@pytest.mark.parametrize("what", MIXING)
def test_what_mixes_rows_stays(what, run):
    after, operator = MIXING[what]
    kinds, changes = fired(after, run)
    assert operator in kinds
    [change] = changes
    assert f"table ({V}, 5)" in change.what


def test_a_single_row_is_left_alone():
    module = nn.Sequential(nn.Embedding(V, 4), nn.Linear(4, 3), nn.LayerNorm(3)).eval()
    model = capture_module(module, "stage", [torch.zeros(1, dtype=torch.int64)], ["k"], ["made"])
    assert tabulate(model, {"k": TensorSpec("k", "int64", (1,), (0, V))}) == []


@pytest.mark.parametrize("rows", [2, 5, 17, 40])
def test_any_number_of_rows_against_any_vocabulary(rows, run):
    module = nn.Sequential(nn.Embedding(V, 4), nn.Linear(4, 3), nn.LayerNorm(3)).eval()
    examples = [torch.zeros(rows, dtype=torch.int64)]
    before = capture_module(module, "stage", examples, ["k"], ["made"])
    model = ir.from_proto(ir.to_proto(before))
    hoist(model)
    [change] = tabulate(model, {"k": TensorSpec("k", "int64", (rows,), (0, V))})
    assert f"table ({V}, 3)" in change.what
    k = RNG.integers(0, V, rows)
    np.testing.assert_allclose(run(model, k=k)["made"], run(before, k=k)["made"], rtol=0, atol=1e-6)
