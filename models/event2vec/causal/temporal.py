"""The temporal embedding when only the past is known: three convolutions that look back two positions each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

TAPS = 3


class CausalTemporalEmbedding(nn.Module):
    """Three convolutions over gaps: a token sees the last seven gaps. Before a stream's first event gaps are 0.

    Args:
        width: d.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        quarter, half = width // 4, width // 2
        self.convs = nn.ModuleList(
            (
                nn.Conv1d(1, quarter, TAPS, bias=False),
                nn.Conv1d(quarter, half, TAPS, groups=quarter, bias=False),
                nn.Conv1d(half, width, TAPS, groups=half, bias=False),
            )
        )
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in (quarter, half, width))

    @property
    def histories(self) -> list[tuple[int, int]]:
        """Shapes of the inputs of each convolution that a step must remember."""
        return [(TAPS - 1, conv.in_channels) for conv in self.convs]

    def forward(self, gaps: Tensor, histories: Sequence[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Embeds a run of gaps.

        Args:
            gaps: (B, L) gaps in units of the time scale.
            histories: What the last call returned; zeros at the beginning of a stream.

        Returns:
            (B, L, d), and the last two inputs of each convolution, (B, 2, C).
        """
        value, kept = gaps[..., None], []
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            nothing = value.new_zeros(len(value), TAPS - 1, value.shape[2])
            before = nothing if histories is None else histories[number]
            joined = torch.cat((before, value), 1)
            kept.append(joined[:, -(TAPS - 1) :])
            value = norm(conv1d(joined.transpose(1, 2), conv.weight, groups=conv.groups).transpose(1, 2))
            value = value.relu() if number < len(self.convs) - 1 else value
        return value, kept

    def step(self, gap: Tensor, *histories: Tensor) -> tuple[Tensor, list[Tensor]]:
        """One gap () -> (d,), and the new histories, (2, C) each; products and sums instead of convolutions."""
        value, kept = gap.reshape(1), []
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            joined = torch.cat((histories[number], value[None]))
            kept.append(joined[1:])
            # Output channel c reads input channel c // share.
            share = conv.out_channels // conv.in_channels
            taken = joined[:, :, None].expand(TAPS, conv.in_channels, share).reshape(TAPS, conv.out_channels)
            value = norm((taken * conv.weight[:, 0].T).sum(0))
            value = value.relu() if number < len(self.convs) - 1 else value
        return value, kept
