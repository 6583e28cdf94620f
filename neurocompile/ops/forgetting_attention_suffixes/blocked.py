"""`forgetting_attention_suffixes` in plain torch: a running softmax, from the last keys to the first."""

from __future__ import annotations

import torch
from torch import Tensor

from neurocompile.ops.forgetting_attention.blocked import sum_dtype


def suffixes(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, known: Tensor, cut: int) -> Tensor:
    """The op, C keys at a time; memory beside the answers grows with Q times C.

    Args:
        q: (B, Q, H, D).
        k: (B, M, K, D).
        v: (B, M, K, D).
        log_f: (B, T, H).
        known: (B, Q, H, D + 1).
        cut: C.

    Returns:
        (B, M / C, Q, H, D + 1) in float32, or in float64 if any input is float64.
    """
    dtype = sum_dtype(q, k, v, log_f, known)
    queries, heads, width = q.shape[1:]
    keys, steps, group = k.shape[1], log_f.shape[1], heads // k.shape[2]
    q, k, v, known = (value.to(dtype).transpose(1, 2) for value in (q, k, v, known))
    q = q / width**0.5
    k, v = (value.repeat_interleave(group, 1) for value in (k, v))
    # Sums of gates are float64, and their differences are formed before they are rounded.
    passed = log_f.double().cumsum(1).transpose(1, 2)
    place = torch.arange(steps - queries, steps, device=q.device)[:, None]
    mean, top = known[..., :-1], known[..., -1:]
    answers = []
    for end in range(keys, 0, -cut):
        here = slice(end - cut, end)
        decay = passed[..., steps - queries :, None] - passed[..., None, here]
        later = torch.arange(here.start, here.stop, device=q.device) > place
        s = (q @ k[:, :, here].transpose(2, 3) + decay.to(dtype)).masked_fill(later, -torch.inf)
        new = torch.maximum(top, s.amax(-1, keepdim=True))
        p, before = (s - new).exp(), (top - new).exp()
        mass = before + p.sum(-1, keepdim=True)
        mean, top = (before * mean + p @ v[:, :, here]) / mass, new + mass.log()
        answers.append(torch.cat((mean, top), -1).transpose(1, 2))
    return torch.stack(answers[::-1], 1)
