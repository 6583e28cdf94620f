"""`forgetting_attention_suffixes` as one operator of torch, so that a captured program holds a single node."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from neurocompile.ops.forgetting_attention.blocked import sum_dtype
from neurocompile.ops.forgetting_attention_suffixes import blocked

torch.library.define(
    "neurocompile::forgetting_attention_suffixes",
    "(Tensor q, Tensor k, Tensor v, Tensor log_f, Tensor known, int cut) -> Tensor",
)


def suffixes(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, known: Tensor, cut: int) -> Tensor:
    """(B, M / C, Q, H, D + 1) answers of inputs of any real types."""
    return cast(Tensor, torch.ops.neurocompile.forgetting_attention_suffixes(q, k, v, log_f, known, cut))


@torch.library.impl("neurocompile::forgetting_attention_suffixes", "CompositeImplicitAutograd")
def _suffixes(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, known: Tensor, cut: int) -> Tensor:
    """One node of the ONNX graph if one is being made, else the result."""
    if torch.onnx.is_in_onnx_export():
        from neurocompile.ops.forgetting_attention_suffixes.onnx_function import symbolic_node

        dtype = sum_dtype(q, k, v, log_f, known)
        return symbolic_node([value.to(dtype) for value in (q, k, v, log_f, known)], cut)
    with torch.autocast(q.device.type, enabled=False):
        return blocked.suffixes(q, k, v, log_f, known, cut)
