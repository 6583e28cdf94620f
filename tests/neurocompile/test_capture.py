"""Capture: pure modules become typed, readable graphs that know nothing of torch; anything else is refused by name."""

from __future__ import annotations

import re
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from neurocompile.capture import IR_VERSION, OPSET, capture, capture_module
from neurocompile.graph_program import GraphProgram
from neurocompile.passes import PASSES, run_passes
from neurocompile.program import ProgramSpec, StageSpec, StateSpec, StreamProgram, TensorSpec, Trigger
from runtime.errors import UserError
from runtime.front_ends import TokenDt
from runtime.program import REQUEST


class Buffer(nn.Module):
    """Keeps a registered buffer and overwrites or replaces it."""

    def __init__(self, replace: bool) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.register_buffer("trace", torch.zeros(3))
        self.replace = replace

    def forward(self, x):
        """A leaky trace that never became an output."""
        if self.replace:
            self.inner.trace = self.inner.trace * 0.5 + x
        else:
            self.inner.trace.mul_(0.5).add_(x)
        return (self.inner.trace * 1.0,)


class Plain(nn.Module):
    """Keeps a tensor, a number, a list or a table without registering it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.tensor, self.count, self.seen = kind, torch.zeros(3), 0, []
        self.table = {"last": torch.zeros(3)}

    def forward(self, x):
        """Remembers in one of four places."""
        if self.kind == "tensor":
            self.tensor = self.tensor + x
        elif self.kind == "count":
            self.count += 1
        elif self.kind == "seen":
            self.seen.append(x)
        else:
            self.table["last"] = x
        return (x + self.tensor + self.count,)


class Overwrites(nn.Module):
    def forward(self, x):
        return (x.add_(1),)


class Branches(nn.Module):
    def forward(self, x):
        return (x,) if x.sum() > 0 else (-x,)


class Unknown(nn.Module):
    def forward(self, x):
        return (torch.special.bessel_j0(x),)


class Noise(nn.Module):
    def forward(self, x):
        return (x + torch.randn(3),)


class Forgetful(nn.Module):
    """Dropout that is not told of evaluation mode."""

    def forward(self, x):
        return (nn.functional.dropout(x, 0.5, training=True),)


class Broken(nn.Module):
    def forward(self, x):
        return (x @ torch.zeros(4, 2),)


def capture_one(module: nn.Module) -> ir.Model:
    return capture_module(module, "cell", [torch.zeros(3)], ["x"], ["y"])


@pytest.mark.parametrize(
    ("module", "culprit"),
    [
        (Buffer(replace=False), "inner.trace"),
        (Buffer(replace=True), "inner.trace"),
        (Plain("tensor"), "tensor"),
        (Plain("count"), "count"),
        (Plain("seen"), "seen"),
        (Plain("table"), "table"),
    ],
)
def test_hidden_state_is_refused_by_name(module, culprit):
    with pytest.raises(UserError, match=rf"stage 'cell' changes {re.escape(culprit)} while it runs.*state table"):
        capture_one(module)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Overwrites(), "overwrites an input"),
        (Branches(), "data-dependent"),
        (Unknown(), "bessel"),
        (Noise(), "random numbers"),
        (Forgetful(), "random numbers"),
        (Broken(), "fails on zeros"),
    ],
)
def test_what_cannot_be_captured_is_refused_in_one_sentence(module, why, capfd):
    with pytest.raises(UserError, match=f"(?s)stage 'cell'.*{why}") as caught:
        capture_one(module)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert capfd.readouterr() == ("", "")


def test_the_callers_module_is_left_alone():
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.BatchNorm1d(3)).double().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}

    class Tuple(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = module

        def forward(self, x):
            return (self.body(x[None])[0],)

    capture_one(Tuple())
    assert module.training
    assert module[1].training
    for name, value in module.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


class Twice(nn.Module):
    """The same value under two names, and inputs handed through."""

    def forward(self, x, state):
        """Five outputs out of two."""
        y = x * 2.0
        return y, y * 1, y, state, state


def test_every_output_has_its_own_name(run):
    names = ["y", "z", "w", "gap", "state_next"]
    model = capture_module(Twice(), "cell", [torch.zeros(3), torch.zeros(2)], ["x", "state"], names)
    assert [value.name for value in model.graph.outputs] == names
    answer = run(model, x=[1, 2, 3], state=[7, 8])
    for name in "yzw":
        np.testing.assert_array_equal(answer[name], [2, 4, 6])
    np.testing.assert_array_equal(answer["gap"], [7, 8])
    np.testing.assert_array_equal(answer["state_next"], [7, 8])


class Tiny(nn.Module):
    """Adds what the exporter's own rewriter would drop as negligible."""

    def forward(self, x):
        """1e-9 is small, but not nothing to a number of its size."""
        return ((x + 1e-9) * 1.0000001,)


def test_small_constants_are_kept(run):
    x = np.array([0, 1e-9, 1], np.float32)
    wanted = (x + np.float32(1e-9)) * np.float32(1.0000001)
    np.testing.assert_array_equal(run(capture_one(Tiny()), x=x)["y"], wanted)


class Cell(nn.Module):
    """A made-up recurrent cell with weights at two depths."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(5, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.rate = nn.Parameter(torch.rand(4))

    def forward(self, token, dt, state):
        """Returns the state after one item."""
        u = self.embedding(token)
        for layer in self.layers:
            u = layer(u).tanh()
        return (state * (-dt * self.rate.exp()).exp() + u,)


class Answer(nn.Module):
    def forward(self, state):
        return (state[:2] * 1.0,)


FRONT = TokenDt("channel", 5, 1, "next", 5)


def cell_program(cell: nn.Module | None = None, width: int = 2) -> StreamProgram:
    spec = ProgramSpec(
        family="made_up",
        front_end=FRONT.to_json(),
        items=FRONT.items,
        states=(StateSpec("cell.state", "float32", (4,)),),
        stages=(
            StageSpec("cell", Trigger(), ("token", "dt"), (), reads=("cell.state",), writes=("cell.state",)),
            StageSpec("answer", Trigger(REQUEST), (), (TensorSpec("out", "float32", (width,)),), reads=("cell.state",)),
        ),
    )
    return StreamProgram(spec, {"cell": cell or Cell(), "answer": Answer()})


@pytest.fixture(scope="module")
def captured() -> GraphProgram:
    return capture(cell_program())


def test_versions_that_released_runtimes_accept(captured):
    for proto in captured.protos().values():
        assert proto.ir_version == IR_VERSION <= 10
        assert {opset.domain: opset.version for opset in proto.opset_import} == {"": OPSET}
        onnx.checker.check_model(proto, full_check=True)


def test_every_value_is_typed(captured):
    for program in (captured, run_passes(captured)[0]):
        for model in program.graphs.values():
            for node in model.graph:
                for value in node.outputs:
                    assert value.dtype is not None, value.name
                    assert value.shape is not None, value.name
                    assert value.shape.is_static(), value.name


def test_names_of_nodes_and_values(captured):
    cell = captured.graphs["cell"].graph
    nodes = [node.name for node in cell]
    assert {"embedding/Gather", "layers/0/Tanh", "layers/1/Tanh"} <= set(nodes)
    assert any(name.startswith("layers/1/") and "MatMul" in name for name in nodes)
    assert "embedding/weight" in cell.initializers
    for program in (captured, run_passes(captured)[0]):
        for model in program.graphs.values():
            graph = model.graph
            assert len({node.name for node in graph}) == len(graph)
            ends = {value.name for value in (*graph.inputs, *graph.outputs)}
            for node in graph:
                for value in node.outputs:
                    assert value.name in ends or value.name.startswith(f"{node.name}:out")
            for name, value in graph.initializers.items():
                assert name == value.name == value.const_value.name
                assert "/" in name and ":" not in name and "val_" not in name
    names = set(run_passes(captured, ("hoist",))[0].graphs["cell"].graph.initializers)
    assert any(re.fullmatch(r"layers/0/MatMul/weight", name) for name in names)


@pytest.mark.parametrize("passes", [(), tuple(PASSES)])
def test_nothing_of_this_machine_is_in_the_bytes(captured, passes):
    for data in run_passes(captured, passes)[0].serialised().values():
        for trace in (
            b"stack_trace",
            b'File "',
            b".py",
            sys.prefix.encode(),
            __file__.encode(),
            b"pkg.torch",
            b"fx_node",
        ):
            assert trace not in data, trace
    assert "cell" in captured.serialised()


def test_graphs_own_their_weights():
    """A model trained on after its capture does not change the graphs."""
    cell = Cell()
    program = capture(cell_program(cell))
    before = program.serialised()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.fill_(7)
    assert program.serialised() == before
    for model in program.graphs.values():
        for value in model.graph.initializers.values():
            assert type(value.const_value) is ir.Tensor
            assert isinstance(value.const_value.raw, np.ndarray)


def test_passes_leave_their_input_alone(captured):
    before = captured.serialised()
    rewritten, changes = run_passes(captured)
    assert changes
    assert captured.serialised() == before
    assert rewritten.serialised() != before
    assert run_passes(captured, ())[0].serialised() == before


def test_a_stage_that_makes_something_else_than_the_tables_say():
    with pytest.raises(UserError, match=r"stage 'answer' makes out .*\[2\].*tables say float32 \[3\]"):
        capture(cell_program(width=3))


class Selects(nn.Module):
    def forward(self, state):
        return (state[state > 0],)


def test_a_shape_that_depends_on_values():
    program = cell_program()
    with pytest.raises(UserError, match="stage 'answer' makes out .*tables say"):
        capture(StreamProgram(program.spec, {**program.modules, "answer": Selects()}))
