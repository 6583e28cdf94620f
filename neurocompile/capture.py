"""Capture: a model's stages become typed ONNX graphs, once. From here on nothing is torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import onnx_ir as ir
import torch
from torch import nn

from neurocompile.graph_program import GraphProgram
from neurocompile.graphs import clean
from neurocompile.naming import SCOPES, name_nodes
from neurocompile.normalise import normalise
from neurocompile.ops import attach_functions
from neurocompile.program import StreamProgram
from runtime.backends.ort import NEXT
from runtime.errors import InternalError, UserError

OPSET = 20
EXPORTER_LOG = "torch.onnx._internal.exporter._registration"
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
        graphs[stage.name] = capture_module(program.modules[stage.name], stage.name, examples, names, outputs)
    if chunk := spec.chunk:
        examples = [_example(values[name].dtype, (chunk.items, *values[name].shape)) for name in chunk.inputs]
        examples += [_example(states[name].dtype, states[name].shape) for name in chunk.reads]
        outputs = [name + NEXT for name in chunk.writes]
        names = [*chunk.inputs, *chunk.reads]
        graphs[chunk.name] = capture_module(program.modules[chunk.name], chunk.name, examples, names, outputs)
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
    module = module.float().eval()
    # The exporter warns about every optional torchvision operator that is not installed.
    logging.getLogger(EXPORTER_LOG).setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            exported = torch.export.export(_Fresh(module), tuple(examples), strict=False)
        except Exception as error:  # torch.export raises many private kinds.
            raise UserError(f"stage {name!r} cannot be captured: {_first_line(error)}") from error
        if mutated := list(exported.graph_signature.buffers_to_mutate.values()):
            raise UserError(
                f"stage {name!r} changes {', '.join(mutated)} while it runs, which is no declared state; "
                "add it to the program's state table and pass it in and out"
            )
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
    if [value.name for value in model.graph.inputs] != list(inputs):
        raise InternalError(f"stage {name!r} lost or renamed inputs: {[value.name for value in model.graph.inputs]}")
    model.ir_version = IR_VERSION
    model.graph.name = name
    _Fresh.forget(model)
    attach_functions(model)
    clean(model)
    normalise(model)
    clean(model)
    name_nodes(model)
    return model


class _Fresh(nn.Module):
    """A stage whose outputs are never its inputs themselves: a graph value has one name."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Copies what the stage passes through."""
        outputs = self.stage(*inputs)
        return tuple(output.clone() if any(output is given for given in inputs) else output for output in outputs)

    @staticmethod
    def forget(model: ir.Model) -> None:
        """Takes this wrapper's own level out of the names of weights and submodules."""
        for name, value in list(model.graph.initializers.items()):
            if name.startswith("stage."):
                value.name = name.removeprefix("stage.")
        for node in model.graph:
            if scopes := node.metadata_props.get(SCOPES):
                node.metadata_props[SCOPES] = scopes.replace("'stage.", "'").replace("'stage'", "''")


def _example(dtype: str, shape: Sequence[int]) -> torch.Tensor:
    return torch.zeros(tuple(shape), dtype=getattr(torch, dtype))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
