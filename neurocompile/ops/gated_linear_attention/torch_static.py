"""`gated_linear_attention` over a known number of steps in operators that every compiler knows, as in `onnx_static.py`.

Blocks of positions with the state carried between them; every exponent is a sum of its own, none a difference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neurocompile.ops.gated_linear_attention.onnx_static import BLOCK, HIDDEN
from neurocompile.ops.running_sum import running_sum, sum_of_later


def expand(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The op in blocks of `BLOCK` positions.

    Args:
        q: (B, T, H, D) queries; T is a number, not a symbol.
        k: (B, T, K, D) keys.
        v: (B, T, K, E) values.
        log_f: (B, T, H) logarithm of the gates.
        state: (B, H, D, E) state before.

    Returns:
        (B, T, H, E) result and (B, H, D, E) last state, float32.
    """
    q, k, v, log_f, state = (value.float() for value in (q, k, v, log_f, state))
    batch, steps, heads, width = (int(size) for size in q.shape)
    key_heads, out = int(k.shape[2]), int(v.shape[3])
    group = heads // key_heads
    queries = (q * width**-0.5).reshape(batch, steps, key_heads, group, width).permute(0, 2, 3, 1, 4)
    keys = k.permute(0, 2, 3, 1).unsqueeze(2)
    values = v.permute(0, 2, 1, 3).unsqueeze(2)
    gates = log_f.reshape(batch, steps, key_heads, group).permute(0, 2, 3, 1)
    s, results = state.reshape(batch, key_heads, group, width, out), []
    for begin in range(0, steps, BLOCK):
        end = min(begin + BLOCK, steps)
        here = slice(begin, end)
        s, result = _block(s, queries[..., here, :], keys[..., here], values[..., here, :], gates[..., here])
        results.append(result)
    whole = torch.cat(results, 3) if len(results) > 1 else results[0]
    o = whole.permute(0, 3, 1, 2, 4).reshape(batch, steps, heads, out)
    return o, s.reshape(batch, heads, width, out)


def _block(s: Tensor, queries: Tensor, keys: Tensor, values: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
    """The next state (B, K, H/K, D, E) and the results (B, K, H/K, size, E) of one block."""
    size = int(gates.shape[3])
    place = torch.arange(size, device=gates.device)
    row, column = place.unsqueeze(1), place.unsqueeze(0)
    zero = torch.zeros((), device=gates.device)
    passed = running_sum(gates, 3)
    between = running_sum(torch.where(row > column, gates.unsqueeze(4), zero), 3)
    decay = torch.where(row >= column, between, torch.full((), HIDDEN, device=gates.device)).exp()
    own = (queries.matmul(keys) * decay).matmul(values)
    before = (queries * passed.unsqueeze(4).exp()).matmul(s)
    learnt = (keys * sum_of_later(gates, 3).exp().unsqueeze(3)).matmul(values)
    kept = passed[..., size - 1 : size].unsqueeze(4).exp()
    return kept * s + learnt, own + before
