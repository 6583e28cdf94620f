"""The kernels of flash-linear-attention (`fla`, MIT), which training on a GPU uses where they mean the same as ours.

They compute the op's formula from the same tensors (arXiv 2312.06635). What differs is rounding: they round the result
and the state that a block meets to the type of `q`. In float32 they multiply in TF32, hence ours.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

ENABLED = True
"""Set it to `False` to train with the kernel of this house."""

WIDTHS = (16, 32, 64, 128)
"""Channels of a key and of a value for which the peer is used."""


@cache
def installed() -> bool:
    """Whether flash-linear-attention is there."""
    return find_spec("fla") is not None


def serves(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> bool:
    """Whether the peer computes this call.

    It does for CUDA tensors of which one needs a gradient, with `q`, `k` and `v` all bfloat16 or all float16, gates and
    state of at most float32, keys and values of `WIDTHS` channels and no more heads than steps (which its older
    versions take for a mistake); not while a graph is captured, exported or compiled, where the op is one node.
    """
    values = (q, k, v, log_f, state)
    return (
        ENABLED
        and q.is_cuda
        and torch.is_grad_enabled()
        and any(value.requires_grad for value in values)
        and q.dtype in (torch.bfloat16, torch.float16)
        and q.dtype == k.dtype == v.dtype
        and torch.float64 not in (log_f.dtype, state.dtype)
        and q.shape[3] in WIDTHS
        and v.shape[3] in WIDTHS
        and q.shape[1] >= q.shape[2]
        and not torch.compiler.is_compiling()
        and not torch.onnx.is_in_onnx_export()
        and installed()
    )


def attend(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 result and last state with autograd; key heads are repeated, one per query head."""
    from fla.ops.simple_gla import chunk_simple_gla

    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    o, last = chunk_simple_gla(
        q, k, v, g=log_f.float(), scale=q.shape[3] ** -0.5, initial_state=state.float(), output_final_state=True
    )
    return o.float(), last
