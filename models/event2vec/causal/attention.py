"""The two attentions that know only the past, each as a sequence and as a step with the same weights.

gated_linear       S_t = f_t S_{t-1} + k_t v_t^T,  o_t = S_t^T q_t / sqrt(d_h), normed per head
forgetting_causal  softmax over the last `memory` tokens of q_t . k_j / sqrt(d_h) + sum of log gates since j
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.event2vec.attention import HeadNorm, Projections
from models.event2vec.causal.config import CausalConfig
from neurocompile.ops.gated_linear_attention import gated_linear_attention
from neurocompile.ops.gated_linear_attention import step as linear_step

NOTHING = -1e30
"""Logarithm of the weight of a place in the ring that holds nothing yet."""


class CausalAttention(Projections):
    """What both share.

    Args:
        config: Widths and heads.
    """

    def __init__(self, config: CausalConfig) -> None:
        super().__init__(config, 1)
        self.head_width = config.head_width


class GatedLinear(CausalAttention):
    """Linear attention with a forget gate; its state is one matrix per head.

    Args:
        config: Widths and heads.
    """

    def __init__(self, config: CausalConfig) -> None:
        super().__init__(config)
        # Without a softmax the result grows with what the state holds; its direction is what counts.
        self.o_norm = HeadNorm(self.heads, config.d_model)

    @property
    def states(self) -> dict[str, tuple[tuple[int, ...], str, float]]:
        """Name -> shape, type and initial value of what a step carries."""
        return {"memory": ((self.heads, self.head_width, self.head_width), "float32", 0.0)}

    def forward(self, x: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, L, d) and (B, H, d_h, d_h), `None` for nothing yet -> (B, L, d) and the last state."""
        o, memory = gated_linear_attention(*self.project(x), memory)
        return self.o_proj(self.o_norm(o.to(x.dtype).flatten(-2))), memory

    def step(self, x: Tensor, memory: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(d,) and (H, d_h, d_h) -> (d,) and the new state."""
        o, memory = linear_step(*self.project(x), memory)
        return self.o_proj(self.o_norm(o.flatten(-2))), (memory,)


class Forgetting(CausalAttention):
    """Softmax attention with a forget gate over the last M tokens; its state is a ring of their keys and values.

    Args:
        config: Widths, heads and `memory` M.
    """

    def __init__(self, config: CausalConfig) -> None:
        super().__init__(config)
        self.memory = config.memory

    @property
    def states(self) -> dict[str, tuple[tuple[int, ...], str, float]]:
        """Name -> shape, type and initial value of what a step carries; `passed` sums log gates since each token."""
        ring = (self.key_heads, self.memory, self.head_width)
        return {
            "keys": (ring, "float32", 0.0),
            "values": (ring, "float32", 0.0),
            "passed": ((self.heads, self.memory), "float32", NOTHING),
            "place": ((), "int64", 0.0),
        }

    def forward(self, x: Tensor, _: None = None) -> tuple[Tensor, None]:
        """(B, L, d) -> (B, L, d), every stream from its beginning.

        Blocks of M queries meet the keys of their own block and of the one before, so memory grows with L M.
        """
        q, k, v, log_f = self.project(x)
        length, size = x.shape[1], self.memory
        fill = -length % size
        q, k, v = (_blocks(pad(value, (0, 0, 0, 0, 0, fill)), size) for value in (q, k, v))
        log_f = _blocks(pad(log_f, (0, 0, 0, fill))[..., None], size)[..., 0]
        k, v = _with_previous(k), _with_previous(v)
        gates = _with_previous(log_f[..., None])[..., 0].cumsum(-1)
        q = q.unflatten(1, (self.key_heads, -1))
        scores = torch.einsum("bkgnid,bknjd->bkgnij", q, k).flatten(1, 2) / self.head_width**0.5
        scores = scores + gates[..., size:, None] - gates[..., None, :]
        back = torch.arange(size, 2 * size, device=x.device)[:, None] - torch.arange(2 * size, device=x.device)
        seen = (back >= 0) & (back < size)
        first = seen & (torch.arange(2 * size, device=x.device) >= size)
        seen = torch.stack((first, *[seen] * (scores.shape[2] - 1)))
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1).unflatten(1, (self.key_heads, -1))
        o = torch.einsum("bkgnij,bknje->bkgnie", weights, v).flatten(1, 2)
        return self.o_proj(o.flatten(2, 3)[:, :, :length].transpose(1, 2).flatten(-2)), None

    def step(
        self, x: Tensor, keys: Tensor, values: Tensor, passed: Tensor, place: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(d,) and the ring -> (d,) and the new ring, in which the new token takes the place of the oldest."""
        q, k, v, log_f = self.project(x)
        here = torch.arange(self.memory, device=x.device) == place
        keys = torch.where(here[:, None], k[:, None], keys)
        values = torch.where(here[:, None], v[:, None], values)
        passed = torch.where(here, torch.zeros_like(passed), passed + log_f[:, None])
        q = q.unflatten(0, (self.key_heads, -1))
        # A softmax and two products, spelt out in what compiled targets know of operands that are no weights.
        scores = ((q * (1 / self.head_width**0.5))[:, :, None] * keys[:, None]).sum(-1)
        scores = scores + passed.unflatten(0, (self.key_heads, -1))
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        o = (weights[..., None] * values[:, None]).sum(2) / weights.sum(-1, keepdim=True)
        place = torch.where(place + 1 == self.memory, torch.zeros_like(place), place + 1)
        return self.o_proj(o.flatten()), (keys, values, passed, place)


def attention(config: CausalConfig) -> GatedLinear | Forgetting:
    """The attention that a configuration asks for."""
    return GatedLinear(config) if config.attention == "gated_linear" else Forgetting(config)


def _blocks(value: Tensor, size: int) -> Tensor:
    """(B, N M, H, D) -> (B, H, N, M, D)."""
    return value.transpose(1, 2).unflatten(2, (-1, size))


def _with_previous(value: Tensor) -> Tensor:
    """(B, H, N, M, D) -> (B, H, N, 2 M, D): every block behind the one before it, zeros before the first."""
    return torch.cat((pad(value[:, :, :-1], (0, 0, 0, 0, 1, 0)), value), 3)
