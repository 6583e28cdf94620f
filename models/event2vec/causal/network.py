"""The causal Event2Vec: the published network's parts, each turned to look back only.

| published | here |
|---|---|
| a perceptron on coordinates | the same, or a table with a row per pixel and polarity |
| gaps over the window's duration | gaps over a fixed `time_scale` |
| convolutions over four gaps before and three after | over seven gaps before |
| forgetting attention in both directions | `gated_linear` or `forgetting_causal` |
| half-filled pairs count in pooling | a pair counts once it is complete |
| mean over the window | mean since the stream began |
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from models.event2vec.causal.attention import attention
from models.event2vec.causal.config import CausalConfig
from models.event2vec.causal.temporal import CausalTemporalEmbedding
from models.event2vec.embedding import CoordinateEmbedding
from models.event2vec.encoder import DropPath, FeedForward, mean, pool_pairs
from models.event2vec.events import scale
from neurocompile.program import StreamProgram
from runtime.front_ends import TokenDt


class CausalLayer(nn.Module):
    """a = norm1(x + attention(x)), out = norm2(a + ffn(a)).

    Args:
        config: The network's.
    """

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        self.attention = attention(config)
        self.norm1 = nn.LayerNorm(config.d_model)
        self.norm2 = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config.d_model, config.d_feedforward)
        self.drop_path = DropPath(0.0)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, L, d), and the attention's state -> (B, L, d), and its last state."""
        o, state = self.attention(x, state)
        a = self.norm1(x + self.drop_path(o))
        return self.norm2(a + self.drop_path(self.ffn(a))), state

    def step(self, x: Tensor, *states: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(d,), and the attention's states -> (d,), and the new ones."""
        o, states = self.attention.step(x, *states)
        a = self.norm1(x + o)
        return self.norm2(a + self.ffn(a)), states


class CausalEncoder(nn.Module):
    """Layers, then a norm of their own.

    Args:
        config: The network's.
        first: What every layer begins as a copy of.
        count: Number of layers.
        begin: Number of layers before these.
    """

    def __init__(self, config: CausalConfig, first: CausalLayer, count: int, begin: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(first) for _ in range(count))
        for number, layer in enumerate(self.layers):
            layer.drop_path = DropPath(config.drop_path * (begin + number) / max(config.n_layers - 1, 1))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, d) -> (B, L, d), every stream from its beginning."""
        for layer in self.layers:
            x, _ = layer(x)
        return self.norm(x)


class CausalEvent2Vec(nn.Module):
    """The classifier.

    Args:
        config: The configuration.

    Attributes:
        config: The configuration.
        embed_net: Perceptron on coordinates, as published, or a table of normed rows.
        tpe: Causal convolutions over gaps.
        backbone: Encoders; with pooling each is followed by one.
        heads: Linear map to logits.
    """

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        if config.place == "table":
            self.embed_net: nn.Module = nn.Sequential(nn.Embedding(config.num_embeddings, width), nn.LayerNorm(width))
        else:
            self.embed_net = CoordinateEmbedding(width)
        self.tpe = CausalTemporalEmbedding(config.d_model)
        # As published, all layers begin as copies of one.
        first, begins = CausalLayer(config), range(0, config.n_layers, config.pool_every_layer or config.n_layers)
        encoders = [CausalEncoder(config, first, *pair) for pair in zip(config.encoders, begins, strict=True)]
        self.backbone = nn.ModuleList(encoders)
        self.heads = nn.Linear(config.d_model, config.num_classes)

    def place(self, token: Tensor) -> Tensor:
        """(..) tokens x + W y + W H p -> (.., d)."""
        if self.config.place == "table":
            return self.embed_net(token)
        x, row = token % self.config.width, token // self.config.width
        place = (row // self.config.height, row % self.config.height, x)
        return self.embed_net(scale(self.config, *(value.to(self.heads.weight.dtype) for value in place)))

    def gap(self, dt: Tensor) -> Tensor:
        """Gaps in ms -> in units of the time scale."""
        return dt.to(self.heads.weight.dtype) / self.config.time_scale

    def forward(self, tokens: Tensor, dt: Tensor, lengths: Tensor) -> Tensor:
        """Classifies a padded batch of whole streams.

        Args:
            tokens: (B, L) int64, x + W y + W H p; -1 on padding, which is at the end.
            dt: (B, L) gap before each event in ms; 0 on padding and for a stream's first event.
            lengths: (B,) int64, number of events.

        Returns:
            (B, C) logits; the bias of `heads` for a stream without a complete group of `total_downsampling` events.
        """
        groups = lengths // self.config.total_downsampling
        fill = -tokens.shape[1] % self.config.total_downsampling
        tokens, dt = (nn.functional.pad(value, (0, fill)) for value in (tokens, dt))
        time, _ = self.tpe(self.gap(dt))
        x = self.place(tokens.clamp(min=0)) + time
        for encoder in self.backbone:
            x = encoder(x)
            if self.config.pool_every_layer:
                x, _ = pool_pairs(x)
        # What lies behind the last complete group has seen padding, and nothing before it has.
        mask = torch.arange(x.shape[1], device=x.device) < groups[:, None]
        return self.heads(mean(x, mask))

    def stream_program(self, front_end: TokenDt, labels: tuple[str, ...] = ()) -> StreamProgram:
        """This network event by event; see `models.event2vec.causal.stream`.

        Args:
            front_end: Token rule, sensor and gap convention it was trained with.
            labels: Class names in logit order.
        """
        from models.event2vec.causal.stream import stream_program

        return stream_program(self, front_end, labels)
