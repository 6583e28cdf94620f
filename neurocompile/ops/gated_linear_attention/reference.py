"""The definition of `gated_linear_attention`: a state that decays, learns one pair and is asked one question."""

from __future__ import annotations

import torch
from torch import Tensor


def gated_linear_attention(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluates one position after the other.

    Args:
        q: (B, T, H, D) queries.
        k: (B, T, K, D) keys; K divides H, and query head h reads key head h // (H / K).
        v: (B, T, K, E) values.
        log_f: (B, T, H) logarithm of the forget gate of each step.
        state: (B, H, D, E) state before the first step.

    Returns:
        (B, T, H, E) o_t = S_t^T q_t / sqrt(D) with S_t = f_t S_{t-1} + k_t v_t^T, and the last state.
    """
    group, width = q.shape[2] // k.shape[2], q.shape[3]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    results = []
    for t in range(q.shape[1]):
        pair = k[:, t, :, :, None] * v[:, t, :, None, :]
        state = log_f[:, t].exp()[..., None, None] * state + pair
        results.append(torch.einsum("bhde,bhd->bhe", state, q[:, t]) / width**0.5)
    return torch.stack(results, 1), state
