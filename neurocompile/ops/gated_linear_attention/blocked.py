"""`gated_linear_attention` in plain torch, block by block, differentiable by torch itself.

Within a block of C positions all pairs meet in two matrix products; between blocks only the state is carried:

    o_i = [ (q_i . k_j) e^{c_i - c_j} ]_{j <= i} v + e^{c_i} S^T q_i,     c_i = sum_{r <= i in block} log f_r
    S'  = e^{c_C} S + sum_j e^{c_C - c_j} k_j v_j^T

so that time grows with T and memory with T C. Gates are at most 1, so no exponent is positive, and prefix sums begin
anew in every block, so that long sequences lose no precision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from neurocompile.ops.gated_linear_attention import adjoint

BLOCK = 64


def sum_dtype(*inputs: Tensor) -> torch.dtype:
    """The type in which sums are accumulated."""
    return torch.float64 if any(value.dtype == torch.float64 for value in inputs) else torch.float32


def forward(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The op; see `reference.gated_linear_attention` for shapes."""
    dtype = sum_dtype(q, k, v, log_f, state)
    q, k, v, log_f, state = (value.to(dtype) for value in (q, k, v, log_f, state))
    return _walk(q, k, v, log_f, state, q.shape[3] ** -0.5, False)


def gradients(
    q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor, last: Tensor, d_o: Tensor, d_last: Tensor
) -> tuple[Tensor, ...]:
    """The adjoint, for callers that kept no graph.

    Args:
        q: (B, T, H, D).
        k: (B, T, K, D).
        v: (B, T, K, E).
        log_f: (B, T, H).
        state: (B, H, D, E).
        last: Second result of `forward`.
        d_o: Gradient by its first result.
        d_last: Gradient by its second.

    Returns:
        Gradients by `q, k, v, log_f, state`, in their types.
    """
    types, dtype = [value.dtype for value in (q, k, v, log_f, state)], last.dtype
    wide = (value.to(dtype) for value in (q, k, v, log_f, state, last, d_o, d_last))
    results = adjoint.gradients(_walk, *wide)
    return tuple(value.to(kind) for value, kind in zip(results, types, strict=True))


def _walk(
    q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor, scale: float, backwards: bool
) -> tuple[Tensor, Tensor]:
    """The op with `scale` for 1 / sqrt(D), or its backward walk; tensors of one type."""
    if backwards:
        q, k, v = (value.flip(1) for value in (q, k, v))
        log_f = pad(log_f.flip(1)[:, :-1], (0, 0, 1, 0))
    _, steps, heads, _ = q.shape
    keys, group = k.shape[2], heads // k.shape[2]
    size = min(BLOCK, steps)
    # Positions that only fill the last block have keys and values 0 and gates 1: they leave the state as it is.
    fill = -steps % size
    q, k, v = (_blocks(pad(value, (0, 0, 0, 0, 0, fill)), size) for value in (q * scale, k, v))
    passed = _blocks(pad(log_f, (0, 0, 0, fill))[..., None], size)[..., 0].cumsum(-1)
    count = passed.shape[2]

    q = q.unflatten(1, (keys, group))
    weights = torch.einsum("bkgnid,bknjd->bkgnij", q, k).flatten(1, 2)
    decay = passed[..., :, None] - passed[..., None, :]
    later = torch.ones(size, size, dtype=torch.bool, device=q.device).triu(1)
    # Masked before exp: what lies in the future would grow without bound, and spoil gradients as inf times 0.
    weights = weights * decay.masked_fill(later, -torch.inf).exp()
    own = torch.einsum("bkgnij,bknje->bkgnie", weights.unflatten(1, (keys, group)), v).flatten(1, 2)

    left = (passed[..., -1:] - passed).exp().unflatten(1, (keys, group))
    learnt = torch.einsum("bkgnj,bknjd,bknje->bkgnde", left, k, v).flatten(1, 2)
    kept = passed[..., -1].exp()
    entering = []
    for block in range(count):
        entering.append(state)
        state = kept[:, :, block, None, None] * state + learnt[:, :, block]
    asked = q.flatten(1, 2) * passed.exp()[..., None]
    o = own + asked @ torch.stack(entering, 2)
    o = o.flatten(2, 3)[:, :, :steps].transpose(1, 2)
    return (o.flip(1) if backwards else o), state


def _blocks(value: Tensor, size: int) -> Tensor:
    """(B, N C, H, D) -> (B, H, N, C, D)."""
    return value.transpose(1, 2).unflatten(2, (-1, size))
