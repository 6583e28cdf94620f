"""States of which a stage reads and replaces some rows: loops in NumPy and C against ONNX Runtime, bit by bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurocompile.graph_program import GraphProgram
from neurocompile.lowering import LoopExecutor, lower
from neurocompile.lowering.loops import Nest, Scatter, StageLoops
from neurocompile.targets import TargetSpec, cpu
from runtime.backends.native import NativeModel, NativeSession
from runtime.backends.ort import OrtExecutor
from runtime.errors import UserError
from runtime.events import Events
from runtime.front_ends import Window
from runtime.program import ITEMS, REQUEST, ProgramSpec, StageSpec, StateSpec, TensorSpec, Trigger
from runtime.session import ScheduledSession

pytestmark = pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")
# Slots of three lines of 1, 2 and 3 places; every firing writes one place of each.
LENGTHS, BEGINS = np.array([1, 2, 3]), np.array([0, 1, 3])
WRITE = "place = Mod(count, lengths) at = Add(place, begins) index = Unsqueeze(at, axis)"
ROWS = "late = Cast<to = 1>(time) rows = Reshape(late, cut)"
BODIES = {
    "in place": f"{WRITE} {ROWS} table_next = ScatterND(table, index, rows) count_next = Add(count, one)",
    "read again": f"{WRITE} {ROWS} table_next = ScatterND(table, index, rows) count_next = Add(count, one)"
    " old = ReduceSum<keepdims = 0>(table, axes) y_next = Mul(old, old)",
    "from another row": f"{WRITE} row = Slice(table, three, six) table_next = ScatterND(table, index, row)"
    " count_next = Add(count, one)",
    "moved up": f"{ROWS} row = Slice(rows, zero, one) past = Slice(table, one, six)"
    " table_next = Concat<axis = 0>(past, row) count_next = Add(count, one)",
    "moved down": f"{ROWS} row = Slice(rows, zero, one) past = Slice(table, zero, five)"
    " table_next = Concat<axis = 0>(row, past) count_next = Add(count, one)",
}


def make_events(count: int) -> Events:
    rng = np.random.default_rng(0)
    return Events(np.cumsum(rng.integers(1, 900, count)), *(rng.integers(0, high, count) for high in (13, 9, 2)))


def program(graph, body: str) -> GraphProgram:
    """Stage `write` replaces rows of `table`, stage `read` gathers the oldest of each line."""
    front, more = Window(13, 9, 12, 4, scaled=False), "y_next" in body
    states = [StateSpec("table", "float32", (6, 4)), StateSpec("count", "int64", (1,))]
    written = ["table", "count", *(["y"] if more else [])]
    states += [StateSpec("y", "float32", (4,))] if more else []
    states.append(StateSpec("found", "float32", (12,)))
    stages = (
        StageSpec("write", Trigger(ITEMS), ("token", "time"), reads=("table", "count"), writes=tuple(written)),
        StageSpec("read", Trigger(ITEMS), (), reads=("table", "count"), writes=("found",)),
        StageSpec("readout", Trigger(REQUEST), (), (TensorSpec("logits", "float32", (12,)),), reads=("found",)),
    )
    spec = ProgramSpec("made_up", front.to_json(), front.items, tuple(states), stages)
    constants = {
        **{"lengths": LENGTHS, "begins": BEGINS, "axis": np.array([1]), "axes": np.array([0]), "one": np.array([1])},
        **{"cut": np.array([3, 4]), "three": np.array([3]), "six": np.array([6])},
        **{"zero": np.array([0]), "five": np.array([5])},
    }
    sizes = {"table": "float[6,4] table_next", "count": "int64[1] count_next", "y": "float[4] y_next"}
    inputs = "int64[12] token, int64[12] time, float[6,4] table, int64[1] count"
    used = {name: value for name, value in constants.items() if f"{name})" in body or f"{name}," in body}
    gather = (
        "place = Mod(count, lengths) at = Add(place, begins) rows = Gather(table, at) found_next = Reshape(rows, flat)"
    )
    return GraphProgram(
        spec,
        {
            "write": graph(f"agraph ({inputs}) => ({', '.join(sizes[name] for name in written)}) {{ {body} }}", **used),
            "read": graph(
                f"agraph (float[6,4] table, int64[1] count) => (float[12] found_next) {{ {gather} }}",
                **{"lengths": LENGTHS, "begins": BEGINS, "flat": np.array([12])},
            ),
            "readout": graph("agraph (float[12] found) => (float[12] logits) { logits = Identity(found) }"),
        },
    )


def compiled(graphs: GraphProgram, folder: Path) -> NativeModel:
    files = cpu.build(graphs, TargetSpec("cpu", "fp32")).files
    (folder / "libmodel.so").write_bytes(files["libmodel.so"])
    return NativeModel(graphs.spec, folder / "libmodel.so", files["model.weights"])


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_rows_are_replaced_and_read_as_in_onnxruntime(body, graph, tmp_path):
    graphs, events = program(graph, body), make_events(60)
    sessions = (
        ScheduledSession(graphs.spec, OrtExecutor(graphs.spec, graphs.serialised())),
        ScheduledSession(graphs.spec, LoopExecutor(graphs.spec, lower(graphs)), use_chunk=False),
        NativeSession(graphs.spec, compiled(graphs, tmp_path)),
    )
    start = np.arange(24, dtype=np.float32).reshape(6, 4)
    for session in sessions:
        snapshot = session.snapshot()
        snapshot["states"]["table"] = start
        session.restore(snapshot)
    wanted, *others = sessions
    for row in zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True):
        for session in sessions:
            session.push_event(*row)
        for other in others:
            for state in graphs.spec.states:
                np.testing.assert_array_equal(other.state(state.name), wanted.state(state.name), err_msg=state.name)
    assert not np.array_equal(wanted.state("table"), start) and wanted.state("count")[0] == 13


def written(stage: StageLoops) -> list[str]:
    return [type(statement).__name__ for statement in stage.statements]


def test_only_the_rows_move_where_nothing_reads_the_old_table(graph):
    stage = lower(program(graph, BODIES["in place"])).stages["write"]
    [scatter] = [s for s in stage.statements if isinstance(s, Scatter)]
    assert scatter.out == scatter.source and scatter.out.buffer.kind == "state"
    assert not any(isinstance(s, Nest) and s.shape == (24,) for s in stage.statements)
    # The old table is summed up first, so that it may go then.
    stage = lower(program(graph, BODIES["read again"])).stages["write"]
    assert written(stage).count("Scatter") == 1


def test_a_ring_that_moves_up_does_so_in_place_and_one_that_moves_down_does_not(graph):
    up, down = (lower(program(graph, BODIES[f"moved {way}"])).stages["write"] for way in ("up", "down"))
    assert 24 not in {buffer.size for buffer in up.locals}
    assert 24 in {buffer.size for buffer in down.locals}


def test_a_restored_count_that_no_stream_has_touches_no_other_memory(graph, tmp_path):
    graphs = program(graph, BODIES["in place"])
    session = NativeSession(graphs.spec, compiled(graphs, tmp_path))
    session.push(make_events(20))
    snapshot = session.snapshot()
    for count in (-5, -(2**62), 2**62):
        snapshot["states"]["count"] = np.array([count])
        session.restore(snapshot)
        session.push(replace(make_events(4), t=np.full(4, 10**6)))
        assert session.state("count")[0] == count + 1 and session.items == snapshot["counts"][-1] + 1
        assert np.isfinite(session.state("table")).all() and np.isfinite(session.readout()).all()


def test_what_is_no_row_of_a_matrix_is_refused(graph):
    body = BODIES["in place"].replace("ScatterND(", 'ScatterND<reduction = "add">(')
    with pytest.raises(UserError, match="ScatterND in stage 'write' cannot be compiled to C: it combines elements"):
        lower(program(graph, body))
    body = BODIES["in place"].replace("Mod(", "Mod<fmod = 1>(")
    with pytest.raises(UserError, match="Mod in stage 'write' .* only remainders of whole numbers"):
        lower(program(graph, body))
