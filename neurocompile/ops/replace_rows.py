"""Rows of a matrix replaced, as the one standard node that a graph needs for it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

torch.library.define("neurocompile::replace_rows", "(Tensor table, Tensor index, Tensor rows) -> Tensor")


def replace_rows(table: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """A copy of a matrix with some rows replaced.

    Args:
        table: (V, W).
        index: (R,) int64 in `[0, V)`, no two equal.
        rows: (R, W).

    Returns:
        (V, W); in a graph a node `ScatterND`, where `index_copy` would become nine.
    """
    return cast(Tensor, torch.ops.neurocompile.replace_rows(table, index, rows))


@torch.library.impl("neurocompile::replace_rows", "CompositeImplicitAutograd")
def _replace_rows(table: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    if torch.onnx.is_in_onnx_export():
        operands = (table, index.unsqueeze(1), rows)
        return torch.onnx.ops.symbolic("ScatterND", operands, dtype=table.dtype, shape=table.shape)
    return table.index_copy(0, index, rows)
