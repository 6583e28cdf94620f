"""Operators along a sequence, one stage each: their loops in NumPy and their C, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neurocompile.graph_program import GraphProgram
from neurocompile.lowering import LoopExecutor, lower
from neurocompile.lowering.loops import Access, Buffer, Fold, Let, Load, MatMul, Nest, StageLoops, check
from neurocompile.targets import TargetSpec, cpu
from runtime.backends.native import NativeModel, NativeSession
from runtime.backends.ort import OrtExecutor
from runtime.errors import UserError
from runtime.events import Events
from runtime.front_ends import Window
from runtime.program import ITEMS, REQUEST, ProgramSpec, StageSpec, StateSpec, TensorSpec, Trigger
from runtime.session import ScheduledSession

pytestmark = pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")


def make_events(count: int) -> Events:
    rng = np.random.default_rng(0)
    t = 1_000_000_000 + np.cumsum(1 + rng.choice([0, 0, 1, 30, 700], count))
    return Events(t, rng.integers(0, 13, count), rng.integers(0, 9, count), rng.integers(0, 2, count))


def compiled(graphs: GraphProgram, folder: Path) -> NativeModel:
    files = cpu.build(graphs, TargetSpec("cpu", "fp32")).files
    (folder / "libmodel.so").write_bytes(files["libmodel.so"])
    return NativeModel(graphs.spec, folder / "libmodel.so", files["model.weights"])


def stage_program(make_graph, text: str, shape: tuple[int, ...], window: int = 30, **constants) -> GraphProgram:
    """A program whose stage `window` writes the state `y`."""
    front = Window(13, 9, window, 4)
    stages = (
        StageSpec("window", Trigger(ITEMS), ("token", "time"), writes=("y",)),
        StageSpec("readout", Trigger(REQUEST), (), (TensorSpec("logits", "float32", shape),), reads=("y",)),
    )
    spec = ProgramSpec("made_up", front.to_json(), front.items, (StateSpec("y", "float32", shape),), stages)
    sizes = ",".join(map(str, shape))
    readout = make_graph(f"agraph (float[{sizes}] y) => (float[{sizes}] logits) {{ logits = Identity(y) }}")
    body = f"agraph (int64[{window}] token, int64[{window}] time) => (float[{sizes}] y_next) {{ {text} }}"
    return GraphProgram(spec, {"window": make_graph(body, **constants), "readout": readout})


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


ROWS = "e = Gather(table, token) e3 = Unsqueeze(e, zero) x = Transpose<perm = [0, 2, 1]>(e3)"
STAGES = {
    "dense convolution with a step": (
        f"{ROWS} y3 = Conv<strides = [2], pads = [2, 1]>(x, w, b) y_next = Squeeze(y3, zero)",
        (6, 16),
        {"w": weights(6, 8, 3), "b": weights(6, seed=1)},
    ),
    "grouped convolution of two channels each": (
        f"{ROWS} y3 = Conv<group = 4, pads = [0, 0]>(x, w) y_next = Squeeze(y3, zero)",
        (12, 29),
        {"w": weights(12, 2, 2)},
    ),
    "norm over channels that lie last in memory": (
        f"{ROWS} t = Relu(x) back = Transpose<perm = [0, 2, 1]>(t) n = LayerNormalization(back, g, b)"
        " y_next = Squeeze(n, zero)",
        (30, 8),
        {"g": weights(8), "b": weights(8, seed=1)},
    ),
    "norm over two axes": (
        "e = Gather(table, token) r = Reshape(e, cut) n = LayerNormalization<axis = 1>(r, g) y_next = Identity(n)",
        (15, 2, 8),
        {"g": weights(2, 8), "cut": np.array([15, 2, 8])},
    ),
    "reductions that keep axes": (
        "e = Gather(table, token) r = Reshape(e, cut) m = ReduceMax<keepdims = 1>(r, one) s = ReduceSum(r, two)"
        " u = ReduceMin<keepdims = 1>(r, zero) d = Sub(r, m) c = Mul(d, s) y_next = Add(c, u)",
        (5, 6, 8),
        {"cut": np.array([5, 6, 8])},
    ),
    "means over pairs and over everything before": (
        "e = Gather(table, token) r = Reshape(e, cut) p = ReduceMean<keepdims = 0>(r, one)"
        " y_next = ReduceMean<keepdims = 0>(p, zero)",
        (8,),
        {"cut": np.array([15, 2, 8])},
    ),
    "padding with a number": (
        "e = Gather(table, token) p = Pad(e, pads, fill) y_next = Neg(p)",
        (33, 9),
        {"pads": np.array([1, 0, 2, 1]), "fill": np.array(2.5, np.float32)},
    ),
    "a product of joined rows, one of them turned round": (
        "e = Gather(table, token) r = Slice(e, last, first, zero, back) j = Concat<axis = -1>(e, r)"
        " y_next = MatMul(j, w)",
        (30, 21),
        {"w": weights(16, 21), "last": np.array([-1]), "first": np.array([-(2**40)]), "back": np.array([-1])},
    ),
    "times": (
        "first = Slice(time, zero, one, zero) s = Sub(time, first) f = Cast<to = 1>(s) u = Unsqueeze(f, one)"
        " scaled = Mul(u, scale) shut = Softplus(scaled) y_next = Exp(shut)",
        (30, 3),
        {"scale": np.float32([[-1e-3, -2e-3, -1e-2]])},
    ),
}


@pytest.mark.parametrize("name", STAGES)
def test_operators_along_a_sequence(name, graph, tmp_path):
    text, shape, constants = STAGES[name]
    shared = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "table": weights(234, 8, seed=9)}
    used = {key: value for key, value in {**shared, **constants}.items() if key in text.replace(",", " ")}
    program = stage_program(graph, text, shape, **used)
    onnx = ScheduledSession(program.spec, OrtExecutor(program.spec, program.serialised()))
    loops = ScheduledSession(program.spec, LoopExecutor(program.spec, lower(program)))
    native = NativeSession(program.spec, compiled(program, tmp_path))
    for session in (onnx, loops, native):
        session.push(make_events(31))
        wanted = onnx.state("y")
        np.testing.assert_allclose(session.state("y"), wanted, rtol=0, atol=5e-6 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize(
    ("text", "shape", "words"),
    [
        ('e = Gather(table, token) y_next = Pad<mode = "edge">(e, pads)', (32, 8), "operator Pad .*constant margins"),
        (f"{ROWS} y3 = Conv<dilations = [2]>(x, w) y_next = Squeeze(y3, zero)", (4, 28), "operator Conv .*skips"),
        ("e = Gather(table, token) y_next = CumSum(e, axis)", (30, 8), "operator CumSum .*no lowering"),
    ],
)
def test_what_has_no_lowering_is_refused_by_name(text, shape, words, graph):
    constants = {"pads": np.array([1, 0, 1, 0]), "w": weights(4, 8, 2), "axis": np.array(0), "zero": np.array([0])}
    used = {key: value for key, value in constants.items() if key in text}
    with pytest.raises(UserError, match=words):
        lower(stage_program(graph, text, shape, table=weights(234, 8), **used))


def test_a_table_that_is_too_short_for_the_tokens_is_refused(graph):
    with pytest.raises(UserError, match="not promised to lie within the table's 233 rows"):
        lower(stage_program(graph, "y_next = Gather(table, token)", (30, 8), table=weights(233, 8)))


def test_folds_of_different_dimensions_in_one_nest_are_found():
    a, out = Buffer("a", "float32", 6, "state"), Buffer("b", "float32", 6, "state")
    load = Let("v", Load(Access(a, 0, (3, 1))))
    folds = (Fold("sum", Access(out, 0, (1, 0)), "v"), Fold("sum", Access(out, 2, (0, 1)), "v"))
    with pytest.raises(ValueError, match="folds over different dimensions"):
        check(StageLoops("s", (), (Nest((2, 3), (load, *folds)),)))
    wide = MatMul(Access(out, 0, (3, 1)), ((Access(a, 0, (3, 1)), 3),), Buffer("w", "float32", 8, "weight"), 2, 3, 3)
    with pytest.raises(ValueError, match="is not 3 x 3"):
        check(StageLoops("s", (), (wide,)))
