"""The definition of `forgetting_attention_suffixes`: what is known is one more key."""

from __future__ import annotations

import torch
from torch import Tensor


def forgetting_attention_suffixes(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, known: Tensor, cut: int) -> Tensor:
    """Evaluates every pair of positions, once per suffix.

    Args:
        q: (B, Q, H, D) queries of the last Q of T positions.
        k: (B, M, K, D) keys of the first M positions; K divides H, and query head h reads key head h // (H / K).
        v: (B, M, K, D) values.
        log_f: (B, T, H) logarithm of the forget gate of each step.
        known: (B, Q, H, D + 1) value and score of one more key of every query.
        cut: Keys C from one suffix to the next; divides M.

    Returns:
        (B, M / C, Q, H, D + 1): attention over the keys rC <= j <= i and that one, and the logarithm of the sum of the
        exponentials of its scores.
    """
    queries, heads, width = q.shape[1:]
    keys, steps, group = k.shape[1], log_f.shape[1], heads // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    passed = log_f.cumsum(1).transpose(1, 2)
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / width**0.5
    scores = scores + passed[..., steps - queries :, None] - passed[..., None, :keys]
    places, positions = torch.arange(steps - queries, steps)[:, None], torch.arange(keys)
    value, score = known[..., :-1].transpose(1, 2), known[..., -1:].transpose(1, 2)
    answers = []
    for start in range(0, keys, cut):
        unseen = (positions > places) | (positions < start)
        s = torch.cat((scores.masked_fill(unseen, -torch.inf), score), -1)
        p = s.softmax(-1)
        o = torch.einsum("bhij,bjhd->bhid", p[..., :-1], v) + p[..., -1:] * value
        answers.append(torch.cat((o, s.logsumexp(-1, keepdim=True)), -1).transpose(1, 2))
    return torch.stack(answers, 1)
