"""Encoder layers, encoders and the pooling between them."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from models.event2vec.attention import ForgettingAttention
from models.event2vec.config import Event2VecConfig
from models.event2vec.packing import Order

EPS = 1e-5
"""Added to counts before dividing by them."""


class Attention(nn.Module):
    """The attention under its published name, `attention.attention`."""

    def __init__(self, config: Event2VecConfig) -> None:
        super().__init__()
        self.attention = ForgettingAttention(config)

    def forward(self, x: Tensor, order: Order | None) -> Tensor:
        """See `ForgettingAttention.forward`."""
        return self.attention(x, order)


class FeedForward(nn.Module):
    """linear2(relu(linear1 x)), without biases."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, inner, bias=False)
        self.linear2 = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return self.linear2(self.linear1(x).relu())


class DropPath(nn.Module):
    """Drops a branch of whole samples in training; what survives grows by 1 / (1 - rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, d) -> (B, L, d)."""
        if not self.training or not self.rate:
            return x
        kept = x.new_empty(len(x), 1, 1).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


class EncoderLayer(nn.Module):
    """a = norm1(x + attention(x)), out = norm2(a + ffn(a)).

    Args:
        config: The network's.
    """

    def __init__(self, config: Event2VecConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.norm1 = nn.LayerNorm(config.d_model)
        self.norm2 = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config.d_model, config.d_feedforward)
        self.drop_path = DropPath(0.0)

    def forward(self, x: Tensor, order: Order | None = None) -> Tensor:
        """(B, L, d) tokens -> (B, L, d); see `ForgettingAttention.forward`."""
        return self.finish(x, self.attention(x, order))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """What `forward` gives, from the tokens and their attention."""
        a = self.norm1(x + self.drop_path(attended))
        return self.norm2(a + self.drop_path(self.ffn(a)))


class Encoder(nn.Module):
    """Layers, then a norm of their own.

    Args:
        config: The network's.
        first: What every layer begins as a copy of.
        count: Number of layers; their branches are dropped at rates from 0 to `drop_path`.
    """

    def __init__(self, config: Event2VecConfig, first: EncoderLayer, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(first) for _ in range(count))
        for number, layer in enumerate(self.layers):
            layer.drop_path = DropPath(config.drop_path * number / max(count - 1, 1))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, order: Order | None = None) -> Tensor:
        """(B, L, d) -> (B, L, d)."""
        for layer in self.layers:
            x = layer(x, order)
        return self.norm(x)


def pool_pairs(x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """The mean of every two neighbours that count, with eps on their number.

    Args:
        x: (B, L, d), L even.
        mask: (B, L) bool; `None` where all count.

    Returns:
        (B, L / 2, d), 0 where neither counts, and (B, L / 2) bool where either does.
    """
    if mask is None:
        return x.unflatten(1, (-1, 2)).sum(2) / (2 + EPS), None
    pairs = mask.unflatten(1, (-1, 2)).to(x.dtype)[..., None]
    count = pairs.sum(2)
    return (x.unflatten(1, (-1, 2)) * pairs).sum(2) / (count + EPS), count[..., 0] > 0


def mean(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, L, d) -> (B, d), the mean of what counts, with eps on its number: 0 where nothing does."""
    if mask is None:
        return x.sum(1) / (x.shape[1] + EPS)
    weight = mask.to(x.dtype)[..., None]
    return (x * weight).sum(1) / (weight.sum(1) + EPS)


def encode(backbone: nn.Module, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Runs one encoder, or several with a pooling after each.

    Args:
        backbone: An `Encoder`, or a `ModuleList` of them.
        x: (B, L, d) tokens.
        mask: (B, L) bool, those that count; `None` where all do.

    Returns:
        (B, L', d) and (B, L') bool or `None`, L' = L / 2 for every pooling.
    """
    if isinstance(backbone, Encoder):
        return backbone(x, _order(mask)), mask
    for encoder in backbone.children():
        x, mask = pool_pairs(encoder(x, _order(mask)), mask)
    return x, mask


def _order(mask: Tensor | None) -> Order | None:
    # Where nothing is to be packed the gathers are left out; asking a GPU would cost more than they do.
    if mask is None or (mask.device.type == "cpu" and bool(mask.all())):
        return None
    return Order.of(mask)
