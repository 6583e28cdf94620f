"""Batch normalisation with the running statistics of the published implementation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class BatchNorm(nn.Module):
    """Normalises each feature by the mean and variance over all other axes.

    Padded positions count in training. The variance is max(0, E[x²] - E[x]²), and this biased value is also what the
    running variance follows (`torch.nn.BatchNorm1d` follows the unbiased one).

        running <- momentum · running + (1 - momentum) · batch

    Args:
        width: Number H of features, the last axis of the input.
        momentum: Share of the old running statistics that an update keeps.
        eps: Added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, momentum: float, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (..., H)."""
        rows = x.reshape(-1, x.shape[-1])
        if not self.training:
            rows = functional.batch_norm(
                rows, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
            return rows.reshape(x.shape)
        mean = rows.mean(0)
        var = (rows.square().mean(0) - mean.square()).clamp(min=0)
        with torch.no_grad():
            self.running_mean.lerp_(mean, 1 - self.momentum)
            self.running_var.lerp_(var, 1 - self.momentum)
        return (x - mean) * (torch.rsqrt(var + self.eps) * self.weight) + self.bias

    def extra_repr(self) -> str:
        """Width and constants, for `print`."""
        return f"{self.weight.shape[0]}, momentum={self.momentum}, eps={self.eps}"
