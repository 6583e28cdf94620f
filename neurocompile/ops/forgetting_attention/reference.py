"""The definition of `forgetting_attention`: softmax attention whose scores decay by a gate per step and head."""

from __future__ import annotations

import torch
from torch import Tensor


def forgetting_attention(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Tensor:
    """Evaluates every pair of positions.

    Args:
        q: (B, T, H, D) queries.
        k: (B, T, K, D) keys; K divides H, and query head h reads key head h // (H / K).
        v: (B, T, K, D) values.
        log_f: (B, T, H) logarithm of the forget gate of each step.

    Returns:
        (B, T, H, D) o_i = sum_{j <= i} softmax_j(q_i . k_j / sqrt(D) + sum_{r = j+1 .. i} log_f_r) v_j.
    """
    return forgetting_attention_within(q, k, v, log_f, q.shape[1])


def forgetting_attention_within(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, memory: int) -> Tensor:
    """The same over the last `memory` positions alone, the query's own among them: i - memory < j <= i."""
    steps, heads, width = q.shape[1:]
    group = heads // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / width**0.5
    passed = log_f.cumsum(1).transpose(1, 2)
    scores = scores + passed[..., :, None] - passed[..., None, :]
    pairs = torch.ones(steps, steps, dtype=torch.bool, device=q.device)
    unseen = pairs.triu(1) | pairs.tril(-memory)
    return torch.einsum("bhij,bjhd->bihd", scores.masked_fill(unseen, -torch.inf).softmax(-1), v)
