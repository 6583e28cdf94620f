"""Capture: a model's stages become typed ONNX graphs, once. From here on nothing is torch."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import onnx_ir as ir
import onnx_ir.passes.common as common
import torch
from torch import nn
from torch.onnx._internal.exporter import _registration

from neurocompile.graph_program import GraphProgram
from neurocompile.graphs import clean, draws, shape_of
from neurocompile.hidden_state import attributes, changed
from neurocompile.naming import SCOPES, name_nodes
from neurocompile.normalise import normalise
from neurocompile.ops import attach_functions
from neurocompile.program import StateSpec, StreamProgram, TensorSpec
from runtime.backends.ort import NEXT
from runtime.errors import InternalError, UserError

OPSET = 20
IR_VERSION = 10


def capture(program: StreamProgram) -> GraphProgram:
    """Exports every stage (and the chunk) of a program in float32.

    Args:
        program: The model's program.

    Returns:
        The same tables over ONNX graphs of opset 20; ops of the `neurocompile` domain are single nodes with a
        function body of standard ops.

    Raises:
        UserError: If a module keeps state of its own, or does something that cannot be captured; names it.
    """
    spec = program.spec
    values = {value.name: value for value in (*spec.items, *(o for stage in spec.stages for o in stage.outputs))}
    states = {state.name: state for state in spec.states}
    graphs = {}
    for stage in spec.stages:
        inputs = [values[name] for name in stage.inputs] + [states[name] for name in stage.reads]
        outputs = [value.name for value in stage.outputs] + [name + NEXT for name in stage.writes]
        examples = [_example(tensor.dtype, tensor.shape) for tensor in inputs]
        names = [tensor.name for tensor in inputs]
        model = capture_module(program.modules[stage.name], stage.name, examples, names, outputs)
        _check_outputs(model, [*stage.outputs, *(states[name] for name in stage.writes)])
        graphs[stage.name] = model
    if chunk := spec.chunk:
        examples = [_example(values[name].dtype, (chunk.items, *values[name].shape)) for name in chunk.inputs]
        examples += [_example(states[name].dtype, states[name].shape) for name in chunk.reads]
        outputs = [name + NEXT for name in chunk.writes]
        names = [*chunk.inputs, *chunk.reads]
        model = capture_module(program.modules[chunk.name], chunk.name, examples, names, outputs)
        _check_outputs(model, [states[name] for name in chunk.writes])
        graphs[chunk.name] = model
    return GraphProgram(spec, graphs)


def capture_module(
    module: nn.Module, name: str, examples: Sequence[torch.Tensor], inputs: Sequence[str], outputs: Sequence[str]
) -> ir.Model:
    """Exports one module of static shapes.

    Args:
        module: A pure module; positional tensors in, tuple of tensors out.
        name: The stage's name, for messages and the graph.
        examples: Tensors of the inputs' types and shapes.
        inputs: Names of the graph inputs.
        outputs: Names of the graph outputs.

    Returns:
        The ONNX model.

    Raises:
        UserError: See `capture`.
    """
    module = copy.deepcopy(module).float().eval()
    with _silence(), _operators_parsed_once(), torch.no_grad():
        _refuse_hidden_state(module, name, examples)
        try:
            exported = torch.export.export(_Fresh(module), tuple(examples), strict=False)
            model = torch.onnx.export(
                exported,
                tuple(examples),
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                dynamo=True,
                # The exporter's own rewriter drops `x + c` for |c| below 1e-8 and `x * c` for c near 1; ours are exact.
                optimize=False,
                verbose=False,
            ).model
        except Exception as error:  # Many private kinds; where a report is long, its cause says what is the matter.
            raise UserError(f"stage {name!r} cannot be captured: {_first_line(_cause(error))}") from error
    if [value.name for value in model.graph.inputs] != list(inputs):
        raise InternalError(f"stage {name!r} lost or renamed inputs: {[value.name for value in model.graph.inputs]}")
    model.ir_version = IR_VERSION
    model.graph.name = name
    model.producer_name, model.producer_version = "neurocompile", None
    _Fresh.forget(model)
    attach_functions(model)
    clean(model)
    normalise(model)
    clean(model)
    # ONNX's propagation of values refuses valid graphs; shapes alone it infers well.
    common.ShapeInferencePass(data_prop=False)(model)
    if random := sorted({node.op_type for node in model.graph if draws(node, model)}):
        raise UserError(
            f"stage {name!r} draws random numbers ({', '.join(random)}), but a stage must answer the same each time; "
            "switch it off in evaluation mode"
        )
    name_nodes(model)
    return model


def _refuse_hidden_state(module: nn.Module, name: str, examples: Sequence[torch.Tensor]) -> None:
    """Runs a copy of the module once, because tracing does not tell of everything that a run changes."""
    module, inputs = copy.deepcopy(module), [example.clone() for example in examples]
    before = attributes(module)
    try:
        module(*inputs)
    except Exception as error:  # Whatever the model's own code raises.
        raise UserError(f"stage {name!r} cannot be captured: it fails on zeros, {_first_line(error)}") from error
    if found := changed(before, attributes(module)):
        raise UserError(
            f"stage {name!r} changes {', '.join(found)} while it runs, which is no declared state; "
            "add it to the program's state table and pass it in and out"
        )
    if any(tensor._version for tensor in inputs):
        raise UserError(f"stage {name!r} overwrites an input; let it compute new tensors and return them")


def _check_outputs(model: ir.Model, wanted: Sequence[TensorSpec | StateSpec]) -> None:
    """The graph makes what the tables say."""
    for value, spec in zip(model.graph.outputs, wanted, strict=True):
        kind = {"float32": "FLOAT", "float64": "DOUBLE"}.get(spec.dtype, spec.dtype.upper())
        if value.dtype != ir.DataType[kind] or shape_of(value) != tuple(spec.shape):
            raise UserError(
                f"stage {model.graph.name!r} makes {value.name} as {value.dtype} {value.shape}, but the program's "
                f"tables say {spec.dtype} {list(spec.shape)}; correct the tables or the stage"
            )


class _Fresh(nn.Module):
    """A stage whose outputs are distinct and none of its inputs: a graph value has one name."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Copies what the stage hands through or returns twice."""
        seen = [*inputs]
        for output in self.stage(*inputs):
            seen.append(output.clone() if any(output is other for other in seen) else output)
        return tuple(seen[len(inputs) :])

    @staticmethod
    def forget(model: ir.Model) -> None:
        """Takes this wrapper's own level out of the names of weights and submodules."""
        for name, value in list(model.graph.initializers.items()):
            if name.startswith("stage."):
                value.name = name.removeprefix("stage.")
        for node in model.graph:
            if scopes := node.metadata_props.get(SCOPES):
                node.metadata_props[SCOPES] = scopes.replace("'stage.", "'").replace("'stage'", "''")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps the exporter's talk (packages it lacks, graphs it failed on) from people; what matters it raises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _operators_parsed_once() -> Iterator[None]:
    """Lets the exporter keep its library of operators, which it parses anew (half a second) for every export."""
    registry: Any = getattr(_registration, "ONNXRegistry", None)
    original = getattr(registry, "from_torchlib", None)
    if original is None:  # A torch that calls its insides otherwise.
        yield
        return
    registry.from_torchlib = staticmethod(_library(original))
    try:
        yield
    finally:
        registry.from_torchlib = original


@cache
def _library(parse: Callable[..., Any]) -> Callable[..., Any]:
    return cache(parse)


def _example(dtype: str, shape: Sequence[int]) -> torch.Tensor:
    return torch.zeros(tuple(shape), dtype=getattr(torch, dtype))


def _cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
