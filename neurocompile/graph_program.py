"""A captured stream program: the same tables, one typed ONNX graph per stage. Passes and targets see only this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from runtime.program import ProgramSpec


@dataclass(frozen=True)
class GraphProgram:
    """The tables and, under each stage's name (and the chunk's), the graph that computes it.

    Graph inputs are named after the stage's values and states, outputs after its values and `STATE_next`.
    A graph may lack an input that it turned out not to need.

    Attributes:
        spec: The tables.
        graphs: Stage name -> ONNX model in memory.
    """

    spec: ProgramSpec
    graphs: Mapping[str, ir.Model]

    def copy(self) -> GraphProgram:
        """An independent copy, for a pass to rewrite."""
        return GraphProgram(self.spec, {name: model.clone() for name, model in self.graphs.items()})

    def protos(self) -> dict[str, onnx.ModelProto]:
        """Stage name -> ONNX model as protobuf message."""
        return {name: ir.to_proto(model) for name, model in self.graphs.items()}

    def serialised(self) -> dict[str, bytes]:
        """Stage name -> bytes of the `.onnx` file."""
        return {name: proto.SerializeToString() for name, proto in self.protos().items()}

    @property
    def nodes(self) -> int:
        """Nodes in all graphs, functions counted as one."""
        return sum(len(model.graph) for model in self.graphs.values())
