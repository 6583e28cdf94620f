"""Attention as eager PyTorch has it: every pair of positions at once, written out or through its own primitive.

Both take the place of the op in the network's own modules, so that everything else is the same for all contestants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from models.event2vec import attention as module

NAME = "forgetting_attention"
Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def materialised(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Tensor:
    """Scores, decay and softmax as (B, H, T, T) tensors; the arguments are those of `forgetting_attention`."""
    q, k, v = _heads_first(q, k, v)
    scores = (q @ k.transpose(2, 3)).mul_(q.shape[-1] ** -0.5).add_(_decay(log_f))
    return (scores.softmax(-1) @ v).transpose(1, 2)


def fused(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Tensor:
    """`scaled_dot_product_attention` with the decay as its mask."""
    q, k, v = _heads_first(q, k, v)
    return scaled_dot_product_attention(q, k, v, attn_mask=_decay(log_f)).transpose(1, 2)


def written_out(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Tensor:
    """`materialised` without operations in place, which compilers fuse by themselves."""
    q, k, v = _heads_first(q, k, v)
    scores = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
    passed = log_f.double().cumsum(1).transpose(1, 2)
    scores = scores + (passed[..., :, None] - passed[..., None, :]).to(scores.dtype)
    later = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1)
    return (scores.masked_fill(later, -torch.inf).softmax(-1) @ v).transpose(1, 2)


@contextmanager
def attention_is(attend: Attend) -> Iterator[None]:
    """Lets every Event2Vec attend by another function for a while."""
    before = module.forgetting_attention
    setattr(module, NAME, attend)
    try:
        yield
    finally:
        setattr(module, NAME, before)


def _heads_first(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    group = q.shape[2] // k.shape[2]
    k, v = (value.transpose(1, 2).repeat_interleave(group, 1) for value in (k, v))
    return q.transpose(1, 2), k, v


def _decay(log_f: Tensor) -> Tensor:
    """(B, H, T, T) sum of the gates between two positions, -inf where the key comes later."""
    passed = log_f.cumsum(1).transpose(1, 2)
    later = torch.ones(passed.shape[2:] * 2, dtype=torch.bool).triu_(1)
    return (passed[..., :, None] - passed[..., None, :]).masked_fill_(later, -torch.inf)
