"""An op as an ONNX node with a body: a model-local function of standard operators, which any runtime inlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx
import onnx.parser
import onnx_ir as ir
import torch
from torch import Tensor

DOMAIN = "neurocompile"
OPSET = 20


@dataclass(frozen=True)
class NodeFunction:
    """The function of one op.

    Attributes:
        op_type: The node's name in the domain `neurocompile`.
        text: Signature and body in ONNX's textual form, `(q, k) => (o) { ... }`, of operator set 20; attributes with
            their defaults in front, `<scale: float = 1.0>`.
        version: Of the domain that the node belongs to.
    """

    op_type: str
    text: str
    version: int = 1

    @cached_property
    def proto(self) -> onnx.FunctionProto:
        """The function, parsed."""
        header = f'<domain: "{DOMAIN}", opset_import: ["": {OPSET}]>'
        return onnx.parser.parse_function(f"{header}\n{self.op_type} {self.text.strip()}")

    def attach(self, model: ir.Model) -> None:
        """Gives the op's nodes in `model` their body; no effect on a model that has none."""
        if any(node.domain == DOMAIN and node.op_type == self.op_type for node in model.graph.all_nodes()):
            function = ir.serde.deserialize_function(self.proto)
            model.functions[function.identifier()] = function
            model.graph.opset_imports[DOMAIN] = self.version

    def emit(
        self,
        inputs: Sequence[Tensor],
        like: Sequence[tuple[torch.dtype, Sequence[int]]],
        attributes: Mapping[str, int | float] | None = None,
    ) -> list[Tensor]:
        """Emits the node while a module is being exported.

        Args:
            inputs: Its operands, all of one type.
            like: Type and shape of each output.
            attributes: Of the node, those that the text declares.

        Returns:
            The outputs.
        """
        dtypes, shapes = zip(*like, strict=True)
        name = f"{DOMAIN}::{self.op_type}"
        outputs = torch.onnx.ops.symbolic_multi_out(
            name, inputs, attributes, dtypes=dtypes, shapes=shapes, version=self.version
        )
        return list(outputs)
