"""`gated_linear_attention` for CUDA tensors: launches the Triton kernel. Importing this file imports Triton.

Forward is one launch, the adjoint three (`adjoint.py`).
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from neurocompile.ops.gated_linear_attention import adjoint
from neurocompile.ops.gated_linear_attention.triton_blocks import WIDEST, constants, plan
from neurocompile.ops.gated_linear_attention.triton_kernel import attention_kernel


def supports(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor, *, gradients: bool = False) -> bool:
    """Whether the kernel takes these inputs: no float64, keys of at most `WIDEST` channels, NVIDIA from 7.5 on.

    With `gradients`, values may have no more channels than that either.
    """
    if torch.version.hip is not None or max(q.shape[-1], v.shape[-1] if gradients else 0) > WIDEST:
        return False
    if torch.float64 in (q.dtype, k.dtype, v.dtype, log_f.dtype, state.dtype):
        return False
    return torch.cuda.get_device_capability(q.device) >= (7, 5)


def forward(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The op, without autograd.

    Args:
        q: (B, T, H, D); bfloat16, float16 or float32 like `k` and `v`, multiplied in the widest of their types.
        k: (B, T, K, D).
        v: (B, T, K, E).
        log_f: (B, T, H), of any of these types.
        state: (B, H, D, E), of any of these types.

    Returns:
        (B, T, H, E) result and (B, H, D, E) last state, float32.
    """
    q, k, v = _alike(q, k, v)
    return _launch(q, k, v, log_f, state, q.shape[3] ** -0.5, False)


def gradients(
    q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor, last: Tensor, d_o: Tensor, d_last: Tensor
) -> tuple[Tensor, ...]:
    """The adjoint, the same in every run.

    Args:
        q: (B, T, H, D).
        k: (B, T, K, D).
        v: (B, T, K, E).
        log_f: (B, T, H).
        state: (B, H, D, E).
        last: Second result of `forward`.
        d_o: (B, T, H, E) gradient by `o`, rounded to the type in which products are taken.
        d_last: (B, H, D, E) gradient by the last state.

    Returns:
        Gradients by `q, k, v, log_f, state`, in their types.
    """
    types = [value.dtype for value in (q, k, v, log_f, state)]
    q, k, v = _alike(q, k, v)
    results = adjoint.gradients(_launch, q, k, v, log_f, state, last, d_o.to(q.dtype), d_last.float())
    return tuple(value.to(dtype) for value, dtype in zip(results, types, strict=True))


def _alike(*values: Tensor) -> list[Tensor]:
    """Tensors in the widest of their types, or float32 where the chip multiplies no bfloat16."""
    dtype = torch.float16 if all(value.dtype == torch.float16 for value in values) else torch.float32
    if all(value.dtype == torch.bfloat16 for value in values) and _capability(values[0]) >= 80:
        dtype = torch.bfloat16
    return [value.to(dtype) for value in values]


def _capability(like: Tensor) -> int:
    major, minor = torch.cuda.get_device_capability(like.device) if like.is_cuda else (8, 0)
    return 10 * major + minor


def _launch(
    q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor, scale: float, backwards: bool
) -> tuple[Tensor, Tensor]:
    """Runs the kernel with queries, keys and values of one type."""
    batch, steps, heads, width = q.shape
    out, capability, size = v.shape[3], _capability(q), q.dtype.itemsize
    o = torch.empty(batch, steps, heads, out, dtype=torch.float32, device=q.device)
    last = torch.empty(batch, heads, width, out, dtype=torch.float32, device=q.device)
    blocks = plan(capability, width, size)
    values = constants(blocks, capability, size, width, out, steps, backwards) | {"SCALE": scale}
    programs = batch * heads * triton.cdiv(out, values["COLUMNS"])
    if programs:
        inputs = (value.contiguous() for value in (q, k, v, log_f, state))
        with torch.cuda.device_of(q):
            attention_kernel[(programs,)](
                *inputs,
                steps,
                heads,
                k.shape[2],
                o,
                last,
                **values,
                num_warps=blocks.warps,
                num_stages=blocks.stages,
                enable_fp_fusion=True,
            )
    return o, last
