"""The kernels of flash-linear-attention, which training on a GPU uses where they mean the same as ours.

They compute the op's formula from the same tensors (arXiv 2503.02130). What differs is rounding: they sum the gates of
a sequence in float32, where ours use float64, and round the result to the type of `q`. In half precision neither shows
as long as a sequence's log gates sum to less than 2^14. In float32 they multiply in TF32, hence ours.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

ENABLED = True
"""Set it to `False` to train with the kernels of this house."""

WIDTHS = (16, 32, 64, 128, 256)
"""Channels of a head for which the peer is used; with others its gradient by q has been reported wrong
(flash-linear-attention, issue 836)."""


@cache
def installed() -> bool:
    """Whether flash-linear-attention is there."""
    return find_spec("fla") is not None


def serves(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> bool:
    """Whether the peer computes this call.

    It does for CUDA tensors of which one needs a gradient, with `q`, `k` and `v` all bfloat16 or all float16, `log_f`
    float32 or of their type, a head of `WIDTHS` channels and no more heads than steps (which its older versions take
    for a mistake); not while a graph is captured, exported or compiled, where the op is one node.
    """
    return (
        ENABLED
        and q.is_cuda
        and torch.is_grad_enabled()
        and any(value.requires_grad for value in (q, k, v, log_f))
        and q.dtype in (torch.bfloat16, torch.float16)
        and q.dtype == k.dtype == v.dtype
        and log_f.dtype in (torch.float32, q.dtype)
        and q.shape[3] in WIDTHS
        and q.shape[1] >= q.shape[2]
        and not torch.compiler.is_compiling()
        and not torch.onnx.is_in_onnx_export()
        and installed()
    )


def attend(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Tensor:
    """(B, T, H, D) float32 attention with autograd, by flash-linear-attention."""
    from fla.ops.forgetting_attn import parallel_forgetting_attn

    return parallel_forgetting_attn(q, k, v, log_f.float()).float()
