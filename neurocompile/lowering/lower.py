"""From typed ONNX stage graphs to loops."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

import neurocompile.lowering.elementwise
import neurocompile.lowering.reductions
import neurocompile.lowering.sequences  # noqa: F401  (these register their operators)
from neurocompile.graph_program import GraphProgram
from neurocompile.graphs import shape_of
from neurocompile.lowering.in_place import settle
from neurocompile.lowering.loops import Buffer, LoopProgram, MatMul, MatVec, StageLoops, accesses, check
from neurocompile.lowering.nests import statements
from neurocompile.lowering.operators import OPERATORS, Call, Value
from neurocompile.lowering.tasks import StageBuilder, Task, Weights
from neurocompile.lowering.views import Joined, Tensor, View
from runtime.program import ProgramSpec, StageSpec

NEXT = "_next"


def lower(program: GraphProgram) -> LoopProgram:
    """Lowers every stage of a program; the chunk form stays with the graphs.

    Args:
        program: The program after the passes.

    Returns:
        The loop program, checked.

    Raises:
        UserError: If a stage holds an operator, type or shape that loops cannot express; names both.
    """
    spec, weights = program.spec, Weights()
    named = _named(spec)
    stages = {stage.name: _Stage(stage, weights, named).lower(program.graphs[stage.name]) for stage in spec.stages}
    for stage in stages.values():
        check(stage)
    used = _used(stages)
    arrays = {t.name: t.array for t in weights.tensors.values() if t.array is not None and t.name in used}
    states = tuple(_buffer(named[state.name]) for state in spec.states)
    items = tuple(_buffer(named[item.name]) for item in spec.items)
    values = tuple(_buffer(named[value.name]) for stage in spec.stages for value in stage.outputs)
    return LoopProgram(items, values, states, arrays, stages)


def _named(spec: ProgramSpec) -> dict[str, Tensor]:
    """A tensor for every item, value and state."""
    tensors = {}
    for item in spec.items:
        rows = item.domain[1] if item.domain and item.domain[0] == 0 else 0
        tensors[item.name] = Tensor(item.name, item.dtype, item.shape, "item", rows=rows)
    for value in (value for stage in spec.stages for value in stage.outputs):
        tensors[value.name] = Tensor(value.name, value.dtype, value.shape, "value")
    for state in spec.states:
        tensors[state.name] = Tensor(state.name, state.dtype, state.shape, "state")
    return tensors


def _buffer(tensor: Tensor) -> Buffer:
    return Buffer(tensor.name, tensor.dtype, tensor.size, tensor.kind)


def _used(stages: dict[str, StageLoops]) -> set[str]:
    """Names of the buffers that any statement touches."""
    names = set()
    for statement in (statement for stage in stages.values() for statement in stage.statements):
        names |= {access.buffer.name for access, _, _ in accesses(statement)}
        if isinstance(statement, MatVec | MatMul):
            names.add(statement.weight.name)
    return names


class _Stage:
    def __init__(self, spec: StageSpec, weights: Weights, named: dict[str, Tensor]) -> None:
        self.spec, self.named = spec, named
        self.builder = StageBuilder(spec.name, weights)
        self.values: dict[ir.Value, Value] = {}

    def lower(self, model: ir.Model) -> StageLoops:
        for graph_input in model.graph.inputs:
            # A fresh tensor per stage: what another stage does to the buffer is no producer here.
            tensor = self.named[graph_input.name or ""]
            self.values[graph_input] = replace(tensor, producers=[]).whole()
        for value in model.graph.initializers.values():
            assert value.const_value is not None
            self.values[value] = self.builder.constant(value.const_value.numpy())
        for node in model.graph:
            self._node(node)
        buffers: dict[Tensor, Buffer] = {}
        for output in model.graph.outputs:
            self._output(output)
        tasks = _alive(self.builder.tasks)
        for tensor in {view.tensor for task in tasks for view in (*task.views, task.target)}:
            if tensor.kind not in ("local", "next"):
                buffers[tensor] = _buffer(tensor)
            elif tensor.kind == "next":
                buffers[tensor] = Buffer(tensor.name + NEXT, tensor.dtype, tensor.size, "local")
        made = statements(tasks, buffers)
        states = {
            tensor.name: (_buffer(self.named[tensor.name]), buffer)
            for tensor, buffer in buffers.items()
            if tensor.kind == "next"
        }
        made, kept = settle(made, states)
        new = {buffer for _, buffer in states.values()}
        locals_ = [b for t, b in buffers.items() if t.kind == "local" and b not in new]
        return StageLoops(self.spec.name, (*locals_, *kept), tuple(made))

    def _node(self, node: ir.Node) -> None:
        name = node.op_type
        label = name if node.domain in ("", "ai.onnx") else f"{node.domain}::{name}"
        if label not in OPERATORS:
            self.builder.refuse(label, "the loop level has no lowering for it")
        inputs = [None if value is None else self.values[value] for value in node.inputs]
        result = OPERATORS[label](Call(node, self.builder, inputs))
        results = result if isinstance(result, list) else [result]
        for value, found in zip(node.outputs, results, strict=False):
            declared = shape_of(value)
            shape = found.shape if isinstance(found, View | Joined) else ()
            if declared is not None and declared != shape:
                self.builder.refuse(name, f"{value.name} has the shape {shape}, declared is {declared}")
            self.values[value] = found

    def _output(self, output: ir.Value) -> None:
        """Lets the task that makes an output write it where it belongs; copies what is only a view."""
        name = output.name or ""
        kind = "value" if name in self.named and self.named[name].kind == "value" else "next"
        declared = self.named[name if kind == "value" else name.removesuffix(NEXT)]
        value = self.values[output]
        if isinstance(value, View) and value.is_whole:
            tensor = value.tensor
            if tensor.kind == "local" and len(tensor.producers) == 1:
                tensor.name, tensor.kind = declared.name, kind
                return
        target = Tensor(declared.name, declared.dtype, declared.shape, kind)
        if isinstance(value, Joined):
            self.builder.write_pieces(value, target.whole())
        else:
            self.builder.copy(value, target.whole())


def _alive(tasks: list[Task]) -> list[Task]:
    """Tasks that an output needs."""
    needed: set[Tensor] = set()
    alive = []
    for task in reversed(tasks):
        if task.target.tensor.kind != "local" or task.target.tensor in needed:
            alive.append(task)
            needed.update(view.tensor for view in task.views)
    return alive[::-1]
