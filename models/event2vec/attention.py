"""Forgetting attention in both directions with grouped heads and normalised queries and keys (arXiv 2503.02130)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from models.event2vec.config import Event2VecConfig
from models.event2vec.packing import Order
from models.event2vec.sizes import Sizes
from neurocompile.ops.forgetting_attention import forgetting_attention

EPS = 1e-5
# From here on softplus(x) is x to the last bit of a float64, and exp(x) is not yet out of range.
LINEAR = 40


class HeadNorm(nn.Module):
    """Root mean square norm within each head, with one weight per channel of all heads.

    Args:
        heads: Number of heads.
        width: Channels of all heads together.
    """

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, u: Tensor) -> Tensor:
        """(..., width) -> the same shape."""
        split = u.unflatten(-1, (self.heads, -1))
        return (split * torch.rsqrt(split.square().mean(-1, keepdim=True) + EPS)).flatten(-2) * self.weight


class Projections(nn.Module):
    """What attentions with forget gates share: projections, grouped heads, normalised queries and keys, the gates.

    Args:
        sizes: Widths and heads.
        directions: Results of the attention, side by side, that the last projection takes.
    """

    def __init__(self, sizes: Sizes, directions: int) -> None:
        super().__init__()
        self.heads, self.key_heads = sizes.nheads, sizes.key_heads
        width = sizes.d_model
        keys = width // self.heads * self.key_heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, keys, bias=False)
        self.v_proj = nn.Linear(width, keys, bias=False)
        self.f_proj = nn.Linear(width, self.heads)
        self.o_proj = nn.Linear(directions * width, width, bias=False)
        self.q_norm = HeadNorm(self.heads, width)
        self.k_norm = HeadNorm(self.key_heads, keys)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(.., d) -> queries, keys and values (.., heads, d_h) and log gates (.., H)."""
        q, k = self.q_norm(self.q_proj(x)), self.k_norm(self.k_proj(x))
        q = q.unflatten(-1, (self.heads, -1))
        k, v = (value.unflatten(-1, (self.key_heads, -1)) for value in (k, self.v_proj(x)))
        # logsigmoid, in the form that graphs keep exact where a gate is nearly open or shut.
        return q, k, v, -softplus(-self.f_proj(x), threshold=LINEAR)


class ForgettingAttention(Projections):
    """Both halves of the attention: over what came before an event and over what comes after it.

    Args:
        config: Widths and heads.
    """

    def __init__(self, config: Event2VecConfig) -> None:
        super().__init__(config, 2)

    def forward(self, x: Tensor, order: Order | None = None) -> Tensor:
        """Attends in both directions.

        Args:
            x: (B, L, d) tokens.
            order: Which of them count; `None` where all do.

        Returns:
            (B, L, d), exactly 0 where a token does not count.
        """
        return self.attend(*self.project(x), order)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, order: Order | None = None) -> Tensor:
        """What `forward` gives, from what `project` made."""
        order = order or Order.everything()
        # One call for both directions: the reversed sequences follow the others on the batch axis.
        both = forgetting_attention(*(order.both_ways(value) for value in (q, k, v, log_f)))
        return self.join(*order.back(both.to(log_f.dtype)))

    def join(self, forward: Tensor, backward: Tensor) -> Tensor:
        """Both directions, (B, L, d) each -> (B, L, d)."""
        joined: Tensor = self.o_proj(torch.cat((forward, backward), -1))
        return joined
