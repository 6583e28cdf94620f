"""The gated residual layer of event-ssm around S5.

Like S5's, its pieces take any leading shape. Under autocast, matrix products are rounded; norms and the residual
stream keep the parameters' precision.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from models.event_ssm import hippo
from models.event_ssm.config import EventSSMConfig
from models.event_ssm.norms import BatchNorm
from models.event_ssm.pooling import event_pool
from models.event_ssm.s5 import S5

__all__ = ["S5", "FeatureDropout", "SequenceLayer", "event_pool"]


class FeatureDropout(nn.Module):
    """Dropout with one mask per sample and feature, the same at all times."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drops features of (..., L, H) in training."""
        if not self.training or self.rate == 0:
            return x
        mask = x.new_empty(*x.shape[:-2], 1, x.shape[-1]).bernoulli_(1 - self.rate)
        return x * mask.div_(1 - self.rate)

    def extra_repr(self) -> str:
        """The rate, for `print`."""
        return f"{self.rate}"


class SequenceLayer(nn.Module):
    """Norm, S5, gate and residual; with a stride S > 1 also the pooling of the residual and of dt.

        out = skip(pool(x)) + y · sigmoid(gate(gelu(y))),   y = S5(norm(x), dt)

    Args:
        config: The network's configuration.
        h_in: Input width.
        h_out: Output width; a projection `skip` exists only where it differs.
        states: Number P' of stored complex states.
        stride: S.
    """

    def __init__(self, config: EventSSMConfig, h_in: int, h_out: int, states: int, stride: int = 1) -> None:
        super().__init__()
        self.prenorm, self.stride, self.pooling_mode = config.prenorm, stride, config.pooling_mode
        width = h_in if config.prenorm else h_out
        self.norm = BatchNorm(width, config.bn_momentum) if config.batchnorm else nn.LayerNorm(width, eps=1e-6)
        self.s5 = S5(config, h_in, h_out, states, stride)
        self.gate = hippo.dense(h_out, h_out)
        self.skip = nn.Identity() if h_in == h_out else hippo.dense(h_in, h_out)
        self.dropout = FeatureDropout(config.dropout)

    def mix(self, y: Tensor) -> Tensor:
        """The gated unit y · sigmoid(gate(gelu(y))) of (..., Hout), gelu in its tanh form."""
        gate = self.gate(self.dropout(functional.gelu(y, approximate="tanh")))
        return self.dropout(y * gate.sigmoid())

    def forward(self, x: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, L, Hin) and dt (B, L) in ms to (B, L // S, Hout) and (B, L // S)."""
        y = self.s5(self.norm(x) if self.prenorm else x, dt)
        if self.stride > 1:
            x, dt = event_pool(x, dt, self.stride, self.pooling_mode)
        x = self.skip(x) + self.mix(y)
        return (x if self.prenorm else self.norm(x)), dt
