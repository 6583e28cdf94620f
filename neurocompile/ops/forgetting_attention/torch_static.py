"""`forgetting_attention` over a known number of steps in operators that every compiler knows, as in `onnx_static.py`.

Blocks of queries, each against the keys up to its own end. Decays are sums of gates of one sign, down the columns of a
matrix within a block and as a prefix sum and a reversed one before it, so that float32 is enough.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neurocompile.ops.forgetting_attention.onnx_static import HIDDEN, QUERIES
from neurocompile.ops.running_sum import running_sum, sum_of_later


def expand(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> tuple[Tensor, Tensor]:
    """The op in blocks of `QUERIES` queries.

    Args:
        q: (B, T, H, D) queries; T is a number, not a symbol.
        k: (B, T, K, D) keys.
        v: (B, T, K, D) values.
        log_f: (B, T, H) logarithm of the gates.

    Returns:
        (B, T, H, D) attention and (B H, T) logarithm of every softmax's sum, float32.
    """
    q, k, v, log_f = (value.float() for value in (q, k, v, log_f))
    batch, steps, heads, width = (int(size) for size in q.shape)
    key_heads = int(k.shape[2])
    group = heads // key_heads
    queries = (q * width**-0.5).reshape(batch, steps, key_heads, group, width).permute(0, 2, 3, 1, 4)
    keys = k.permute(0, 2, 3, 1).unsqueeze(2)
    values = v.permute(0, 2, 1, 3).unsqueeze(2)
    gates = log_f.reshape(batch, steps, key_heads, group).permute(0, 2, 3, 1)
    blocks = [
        _block(queries, keys, values, gates, begin, min(begin + QUERIES, steps)) for begin in range(0, steps, QUERIES)
    ]
    o, total = (torch.cat(parts, 3) if len(blocks) > 1 else parts[0] for parts in zip(*blocks, strict=True))
    return (
        o.permute(0, 3, 1, 2, 4).reshape(batch, steps, heads, width),
        total.reshape(batch * heads, steps),
    )


def _block(queries: Tensor, keys: Tensor, values: Tensor, gates: Tensor, begin: int, end: int) -> tuple[Tensor, Tensor]:
    """(B, K, H/K, end - begin, D) attention and (B, K, H/K, end - begin) logarithms of one block of queries."""
    size, own = end - begin, gates[..., begin:end]
    place = torch.arange(size, device=queries.device)
    row, column = place.unsqueeze(1), place.unsqueeze(0)
    zero = torch.zeros((), device=queries.device)
    # Two expansions of the gates, of the matrix' rows: entry (i, j) is gate i where i > j, and i >= j is what is seen.
    within = running_sum(torch.where(row > column, own.unsqueeze(4), zero), 3)
    decay = torch.where(row >= column, within, torch.full((), HIDDEN, device=queries.device))
    if begin:
        past = sum_of_later(gates[..., :begin], 3)
        decay = torch.cat((running_sum(own, 3).unsqueeze(4) + past.unsqueeze(3), decay), 4)
    scores = queries[..., begin:end, :].matmul(keys[..., :end]) + decay
    largest = scores.amax(4, keepdim=True)
    weights = (scores - largest).exp()
    total = weights.sum(4, keepdim=True)
    o = (weights / total).matmul(values[..., :end, :])
    return o, (largest + total.log()).squeeze(4)
