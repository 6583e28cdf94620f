"""event-ssm: the network from tokens and gaps to logits (arXiv 2404.18508)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from models.event_ssm import hippo
from models.event_ssm.config import EventSSMConfig
from models.event_ssm.layers import SequenceLayer
from models.event_ssm.pooling import EPS
from models.event_ssm.stream_tables import stream_program
from neurocompile.program import StreamProgram
from runtime.front_ends import TokenDt


class EventSSM(nn.Module):
    """Embedding, stages of `SequenceLayer`s of which the first pools, weighted mean over time, decoder.

    Attributes:
        config: The configuration.
        embedding: Token table.
        stages: One `ModuleList` of `SequenceLayer`s per stage.
        decoder: Linear map to logits.
    """

    def __init__(self, config: EventSSMConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.num_embeddings, config.d_model)
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                SequenceLayer(config, h_out if number else h_in, h_out, states, 1 if number else config.pooling_stride)
                for number in range(config.num_layers_per_stage)
            )
            for h_in, h_out, states in config.stage_widths
        )
        self.decoder = hippo.dense(config.width, config.num_classes)

    def layers(self) -> Iterator[nn.Module]:
        """Every `SequenceLayer`, in order."""
        for stage in self.stages:
            yield from stage.children()

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeds (...) tokens as (..., H); -1, the padding, reads the last row.

        Raises:
            IndexError: If another token lies outside [0, num_embeddings) (on CPU).
        """
        return self.embedding(torch.where(tokens == -1, self.config.num_embeddings - 1, tokens))

    def forward(self, tokens: Tensor, dt: Tensor, lengths: Tensor) -> Tensor:
        """Classifies a padded batch.

        Args:
            tokens: (B, L) int64, -1 on padded positions.
            dt: (B, L) gap of each event in ms, 0 on padded positions.
            lengths: (B,) int64, number of events before the padding.

        Returns:
            (B, C) logits. They are the decoder's bias for samples without a complete group of
            `total_downsampling` events, in every classification mode.
        """
        dt = dt.to(self.decoder.weight.dtype)
        if tokens.shape[1] < self.config.total_downsampling:
            return self.decoder(dt.new_zeros(tokens.shape[0], self.config.width))
        x = self.embed(tokens)
        for layer in self.layers():
            x, dt = layer(x, dt)
        return self.decoder(self.pool(x, dt, lengths))

    def stream_program(self, front_end: TokenDt, labels: tuple[str, ...] = ()) -> StreamProgram:
        """The exact event-by-event form of this network; see `models.event_ssm.stream`.

        Args:
            front_end: Token rule, sensor and gap convention the network was trained with.
            labels: Class names in logit order.
        """
        return stream_program(self, front_end, labels)

    def pool(self, x: Tensor, dt: Tensor, lengths: Tensor) -> Tensor:
        """Reduces the last stage over time.

            pool      Σ_{k<n} x_k / n
            timepool  Σ_{k<n} x_k (dt_k + 1e-6) / Σ_k dt_k     the divisor counts all positions
            last      x[-1], of the padded sequence: meaningful without padding

        n is the number of complete groups. Where the published formulas have no value, n = 0 gives zeros, and
        simultaneous events only (Σ dt = 0) give the plain mean in `timepool`.

        Args:
            x: (B, G, H) features.
            dt: (B, G) durations in ms.
            lengths: (B,) events before the padding.

        Returns:
            (B, H).
        """
        groups = torch.div(lengths, self.config.total_downsampling, rounding_mode="floor")
        if self.config.classification_mode == "last":
            return torch.where(groups[:, None] > 0, x[:, -1], 0)
        counted = torch.arange(x.shape[1], device=x.device) < groups[:, None]
        divisor = groups.clamp(min=1).to(x.dtype)
        weight = counted.to(x.dtype)
        if self.config.classification_mode == "timepool":
            total = dt.sum(1)
            weight = weight * (dt + EPS)
            divisor = torch.where(total > 0, total, divisor * EPS)
        return (x * weight[..., None]).sum(1) / divisor[:, None]
