"""The two halves of a token: where an event happened, and how much time lies around it.

Submodules have the published places in their sequences, so that weights keep their names.
"""

from __future__ import annotations

from torch import Tensor, nn


class CoordinateEmbedding(nn.Module):
    """The perceptron on x, y, p: a function of the event alone.

    Args:
        width: d.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(3, width // 4, bias=False),
            nn.LayerNorm(width // 4),
            nn.ReLU(),
            nn.Linear(width // 4, width // 2, bias=False),
            nn.LayerNorm(width // 2),
            nn.ReLU(),
            nn.Linear(width // 2, width, bias=False),
            nn.LayerNorm(width),
        )

    def forward(self, points: Tensor) -> Tensor:
        """(..., 3) x, y, p in [-1, 1] -> (..., d)."""
        return self.embed(points)


class Swap(nn.Module):
    """Channels to the end and back."""

    def forward(self, value: Tensor) -> Tensor:
        """(B, L, C) <-> (B, C, L)."""
        return value.transpose(1, 2)


class TemporalEmbedding(nn.Module):
    """Three convolutions over gaps, each of three positions: a token sees the times from four before to three after.

    Gaps average 1 / L, so that the first norm's eps of 1e-5 outweighs the variance it is added to: the result depends
    on the absolute scale of the gaps.

    Args:
        width: d.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        quarter, half = width // 4, width // 2
        self.conv = nn.Sequential(
            nn.Conv1d(1, quarter, 3, padding=1, bias=False),
            Swap(),
            nn.LayerNorm(quarter),
            Swap(),
            nn.ReLU(),
            nn.Conv1d(quarter, half, 3, padding=1, groups=quarter, bias=False),
            Swap(),
            nn.LayerNorm(half),
            Swap(),
            nn.ReLU(),
            nn.Conv1d(half, width, 3, padding=1, groups=half, bias=False),
            Swap(),
            nn.LayerNorm(width),
        )

    def forward(self, gaps: Tensor) -> Tensor:
        """(B, L) differences of normalised time -> (B, L, d)."""
        return self.conv(gaps[:, None])
