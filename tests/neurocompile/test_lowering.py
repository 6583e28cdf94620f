"""Loops against what they come from: stage by stage against ONNX Runtime, whole programs against the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from models.event_ssm import EventSSM
from models.event_ssm.presets import PRESETS
from neurocompile.capture import capture
from neurocompile.graph_program import GraphProgram
from neurocompile.lowering import LoopExecutor, lower
from neurocompile.lowering.loops import Access, Buffer, Let, Load, MatVec, Nest, StageLoops, Store, check
from neurocompile.passes import run_passes
from neurocompile.program import StreamProgram
from neurocompile.reference import reference_session
from runtime.errors import UserError
from runtime.events import Events
from runtime.front_ends import TokenDt
from runtime.session import ScheduledSession

NAMES = [
    *("dvs_tiny", "shd_tiny", "ssc_small", "tiny_batch_one", "tiny_three_stages"),
    *(f"tiny_{rule}_{pool}" for rule in ("zoh", "dirac", "async") for pool in ("last", "avgpool", "timepool")),
]


def front_end_of(config) -> TokenDt:
    """A front end with the case's vocabulary."""
    return TokenDt("channel", config.num_embeddings, 1, "next", config.num_embeddings)


def stepping(model: EventSSM, front: TokenDt | None = None) -> StreamProgram:
    """The model's program without its chunk form, which loops do not have."""
    program = model.stream_program(front or front_end_of(model.config))
    modules = {name: module for name, module in program.modules.items() if name != "chunk"}
    return StreamProgram(replace(program.spec, chunk=None), modules)


def random_events(spec, count: int, seed: int = 0) -> Events:
    """Events over the whole vocabulary, with pauses and simultaneous ones."""
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.choice([0, 1, 17, 250, 1000, 9000], count)).astype(np.int64)
    return Events(t, rng.integers(0, spec.front_end["width"], count), np.zeros(count, np.int64), np.zeros(count, bool))


@pytest.fixture(scope="module", params=NAMES)
def case(request, event_ssm_case):
    """(program, captured program after the passes) of one golden case."""
    program = stepping(event_ssm_case(request.param).model())
    return program, run_passes(capture(program))[0]


def random_inputs(graph: ir.Graph, spec, rng) -> dict[str, np.ndarray]:
    feeds = {}
    for value in graph.inputs:
        shape = tuple(value.shape)
        if value.name == "token":
            feeds[value.name] = np.asarray(rng.integers(0, spec.value("token").domain[1]))
        elif value.dtype == ir.DataType.INT64:
            feeds[value.name] = np.asarray(rng.integers(0, 9), np.int64)
        elif shape == ():
            feeds[value.name] = np.asarray(rng.choice([0.0, rng.random() * 3]), np.float32)
        else:
            feeds[value.name] = rng.normal(size=shape).astype(np.float32)
    return feeds


def test_every_stage_equals_onnxruntime(case):
    _, captured = case
    rng = np.random.default_rng(1)
    executor = LoopExecutor(captured.spec, lower(captured))
    for number, stage in enumerate(captured.spec.stages):
        graph = captured.graphs[stage.name].graph
        session = ort.InferenceSession(captured.serialised()[stage.name], providers=["CPUExecutionProvider"])
        for _ in range(5):
            feeds = random_inputs(graph, captured.spec, rng)
            for name, value in feeds.items():
                executor.memory[name][:] = value.reshape(-1)
            executor.fire(number)
            for output, expected in zip(graph.outputs, session.run(None, feeds), strict=True):
                found = executor.memory[output.name.removesuffix("_next")]
                scale = max(float(np.abs(expected).max()), 1e-3)
                np.testing.assert_allclose(
                    found / scale, expected.reshape(-1) / scale, atol=3e-6, err_msg=f"{stage.name} {output.name}"
                )


def test_the_whole_program_equals_the_reference(case):
    """As close to float64 as the network's own float32 run, give or take a factor of four and a floor of 5e-6."""
    program, captured = case
    reference = reference_session(program)
    rounded = reference_session(program, torch.float32)
    loops = ScheduledSession(captured.spec, LoopExecutor(captured.spec, lower(captured)), use_chunk=False)
    events = random_events(program.spec, 150)
    for session in (reference, rounded, loops):
        session.push(events)

    def compare(name, found, own, expected):
        scale = max(float(np.abs(expected).max()), 1e-6)
        bound = max(5e-6, 4 * float(np.abs(own - expected).max()) / scale)
        assert bound < 1e-3, f"{name}: the float32 network itself strays too far to compare with"
        np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=bound, err_msg=name)

    for name in (state.name for state in program.spec.states):
        compare(name, loops.state(name), rounded.state(name), reference.state(name))
    compare("readout", loops.readout(), rounded.readout(), reference.readout())


@pytest.fixture(scope="module")
def tiny() -> GraphProgram:
    """shd/tiny with random weights, captured."""
    preset = PRESETS["shd/tiny"]
    return run_passes(capture(stepping(EventSSM(preset.config).eval(), preset.front_end)))[0]


def test_an_ordinary_event_is_one_nest_per_width_and_updates_in_place(tiny):
    loops = lower(tiny)
    item = loops.stages["stage0.item"]
    assert not item.locals
    assert sorted(nest.shape for nest in item.statements) == [(), (16,)]


def test_mat_vecs_read_both_parts_of_a_state_where_they_are(tiny):
    first = lower(tiny).stages["stage0.first"]
    (product,) = first.statements
    assert isinstance(product, MatVec) and not first.locals
    assert [access.buffer.name for access, _ in product.pieces] == ["stage0.layer0.x_re", "stage0.layer0.x_im"]


def test_locals_are_poisoned_so_that_an_unwritten_element_shows(tiny):
    loops = lower(tiny)
    executor = LoopExecutor(tiny.spec, loops)
    name = "stage0.group"
    number = [stage.name for stage in tiny.spec.stages].index(name)
    broken = replace(loops.stages[name], statements=loops.stages[name].statements[1:])
    loops.stages[name] = broken
    for values in executor.memory.values():
        if values.dtype == np.float32 and values.flags.writeable:
            values[:] = 1
    executor.fire(number)
    assert np.isnan(executor.memory["stage0.z"]).any()


def test_an_unknown_operator_is_refused_by_name(tiny):
    program = tiny.copy()
    node = next(node for node in program.graphs["stage0.group"].graph if node.op_type == "Gelu")
    node.op_type = "Unheard"
    with pytest.raises(UserError, match=r"operator Unheard in stage 'stage0\.group'"):
        lower(program)


def test_a_gather_that_might_leave_its_table_is_refused(tiny):
    token = replace(tiny.spec.items[0], domain=None)
    spec = replace(tiny.spec, items=(token, *tiny.spec.items[1:]))
    with pytest.raises(UserError, match="not promised to lie within"):
        lower(GraphProgram(spec, tiny.graphs))


@pytest.mark.parametrize(
    ("low", "size", "message"),
    [(1, 4, "do not exist"), (-1, 2, "do not exist")],
)
def test_index_maps_that_leave_their_buffer_are_found(low, size, message):
    buffer, out = Buffer("a", "float32", 4, "state"), Buffer("b", "float32", 8, "state")
    nest = Nest((size,), (Let("v", Load(Access(buffer, low, (1,)))), Store(Access(out, 0, (1,)), "v")))
    with pytest.raises(ValueError, match=message):
        check(StageLoops("s", (), (nest,)))
