"""The dense form: one graph in which every event runs every stage, and a mask keeps the states of those not due.

This is what a stack without a schedule does when it is not to restart from zero state. The result is the multi-rate
program's, so the same gate holds for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtime.program import ITEMS, REQUEST, ProgramSpec, StageSpec, TensorSpec, Trigger
from runtime.schedule import firings
from runtime.session import Executor, ScheduledSession

STAGE = "dense"


def dense_graph(spec: ProgramSpec, graphs: Mapping[str, onnx.ModelProto]) -> onnx.ModelProto:
    """All stages that events fire, in one graph.

    Args:
        spec: The tables.
        graphs: Stage name -> graph.

    Returns:
        A graph whose inputs are the items, `due` (S,) bool per stage, and all states; its outputs the new states.
    """
    stages = [stage for stage in spec.stages if stage.trigger.after != REQUEST]
    items = {item.name for item in spec.items}
    now: dict[str, str] = {state.name: state.name for state in spec.states}
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    used: set[str] = set()
    for number, stage in enumerate(stages):
        graph, mark = graphs[stage.name].graph, f"s{number}/"
        taken = {value.name for value in graph.input}
        used |= taken & items
        # Values between stages keep their names: each has one maker, and its readers come after it.
        names = {name: now.get(name, name) for name in taken} | {output.name: output.name for output in stage.outputs}
        for tensor in graph.initializer:
            constants.append(numpy_helper.from_array(numpy_helper.to_array(tensor), mark + tensor.name))
        for node in graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = mark + node.name
            for field in (copy.input, copy.output):
                field[:] = [names.get(name, mark + name) if name else "" for name in field]
            nodes.append(copy)
        constants.append(numpy_helper.from_array(np.int64(number), f"{mark}number"))
        nodes.append(helper.make_node("Gather", ["due", f"{mark}number"], [f"{mark}due"]))
        for name in stage.writes:
            nodes.append(_keep(mark, name, f"{mark}{name}_next", now))
        for name in stage.resets:
            state = spec.state(name)
            constants.append(
                numpy_helper.from_array(np.full(state.shape, state.initial, state.dtype), f"{mark}{name}_0")
            )
            nodes.append(_keep(f"{mark}reset/", name, f"{mark}{name}_0", now, f"{mark}due"))
    states = [state.name for state in spec.states]
    nodes += [helper.make_node("Identity", [now[name]], [f"{name}_next"]) for name in states]
    inputs = [_info(item) for item in spec.items if item.name in used]
    inputs += [helper.make_tensor_value_info("due", TensorProto.BOOL, [len(stages)])]
    inputs += [_info(state) for state in spec.states]
    outputs = [_info(state, "_next") for state in spec.states]
    graph = helper.make_graph(nodes, STAGE, inputs, outputs, constants)
    (first,) = {(o.domain, o.version) for stage in stages for o in graphs[stage.name].opset_import if not o.domain}
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*first)], ir_version=10)


def _keep(mark: str, state: str, new: str, now: dict[str, str], due: str = "") -> onnx.NodeProto:
    """Takes `new` for the state where the stage is due."""
    made = f"{mark}{state}/kept"
    node = helper.make_node("Where", [due or f"{mark}due", new, now[state]], [made])
    now[state] = made
    return node


def _info(spec: Any, suffix: str = "") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        spec.name + suffix, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), list(spec.shape)
    )


def dense_spec(spec: ProgramSpec, *, masked: bool) -> ProgramSpec:
    """The program as one stage that fires at every item, and the readout.

    Args:
        spec: The tables.
        masked: Whether the mask counts as an item, as the executor sees it, or not, as the front end does.
    """
    states = tuple(state.name for state in spec.states)
    stages = [stage for stage in spec.stages if stage.trigger.after != REQUEST]
    items = (*spec.items, TensorSpec("due", "bool", (len(stages),))) if masked else spec.items
    stage = StageSpec(STAGE, Trigger(ITEMS), tuple(item.name for item in items), (), states, states)
    return replace(spec, items=items, stages=(stage, spec.readout), chunk=None, period=1)


def due_table(spec: ProgramSpec) -> np.ndarray:
    """(cycle, S) bool: which stages item n of a cycle fires."""
    table = firings(spec)
    count = sum(stage.trigger.after != REQUEST for stage in spec.stages)
    return np.array([[stage in fired for stage in range(count)] for fired in table])


class DenseExecutor:
    """Hands an executor the mask together with every item; see `runtime.session.Executor`.

    Args:
        inner: Runs the dense graph.
        spec: The tables of the program with its stages.

    Attributes:
        items: Items run since the last reset.
    """

    def __init__(self, inner: Executor, spec: ProgramSpec) -> None:
        self._inner, self._due, self.items = inner, due_table(spec), 0
        self.run_chunk, self.output = inner.run_chunk, inner.output
        self.get_state, self.set_state = inner.get_state, inner.set_state

    def set_items(self, values: tuple[Any, ...]) -> None:
        """See `Executor.set_items`."""
        self._inner.set_items((*values, self._due[self.items % len(self._due)]))

    def fire(self, stage: int) -> None:
        """See `Executor.fire`; stage 0 is all of them."""
        self._inner.fire(stage)
        self.items += stage == 0


class DenseSession(ScheduledSession):
    """A session of the dense form.

    Args:
        spec: The tables of the program with its stages.
        executor: Runs the dense graph.
    """

    def __init__(self, spec: ProgramSpec, executor: DenseExecutor) -> None:
        self._dense = executor
        super().__init__(dense_spec(spec, masked=False), executor, use_chunk=False)

    def reset(self) -> None:
        """See `Session.reset`."""
        self._dense.items = 0
        super().reset()
