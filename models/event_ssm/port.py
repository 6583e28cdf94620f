"""The public PyTorch derivative of event-ssm (class TorchS5): another network under the same configuration keys.

It has real eigenvalues, normalises after the S5 layer and pools differently, so weights cannot be exchanged with
`EventSSM`. By default it evaluates its recurrence as published,

    x_k = a_k Σ_{i<=k} gamma_i B u_i / (a_i + 1e-9),   a_k = Π_{j<=k} A_j

which forgets the state for good once a_k has fallen far below 1e-9; trained weights rely on it. `recurrence="exact"`
evaluates x_k = A_k x_{k-1} + gamma_k B u_k instead. This is for evaluation: there is no dropout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.event_ssm.port_config import EventSSMPortConfig
from neurocompile.ops.diagonal_scan import diagonal_scan
from neurocompile.program import StreamProgram
from runtime.errors import UserError
from runtime.front_ends import TokenDt

EPS = 1e-6
RECURRENCES = ("published", "exact")


def pool_groups(x: Tensor, dt: Tensor, stride: int, mode: str) -> tuple[Tensor, Tensor]:
    """Pools complete groups of `stride` positions.

    Args:
        x: (B, L, H) features.
        dt: (B, L) durations in ms.
        stride: Positions per group, at least 2.
        mode: `last` takes the last of the group, `avgpool` the mean, `timepool` the mean weighted by dt + 1e-6.

    Returns:
        (B, L // stride, H) and the durations (B, L // stride); `timepool` leaves the 1e-6 of every position in them.
    """
    groups = x.shape[1] // stride
    x = x[:, : groups * stride].reshape(x.shape[0], groups, stride, -1)
    dt = dt[:, : groups * stride].reshape(dt.shape[0], groups, stride)
    if mode == "last":
        return x[:, :, -1], dt.sum(2)
    if mode == "avgpool":
        return x.mean(2), dt.sum(2)
    weight = dt + EPS
    return (x * weight[..., None]).sum(2) / weight.sum(2, keepdim=True), weight.sum(2)


class RealS5(nn.Module):
    """Diagonal state space layer with real, negative eigenvalues Λ = -(softplus(Lambda_raw) + 1e-3).

    Δ = exp(log_step) · step_rescale · dt,  A = exp(Λ Δ),  y = C x + D u
    gamma = 1 (`dirac`), (A - 1) / Λ (`zoh` and `async`)
    """

    def __init__(self, config: EventSSMPortConfig, h_in: int, h_out: int, states: int, recurrence: str) -> None:
        super().__init__()
        self.dirac, self.step_rescale = config.discretization == "dirac", config.step_rescale
        self.recurrence = recurrence
        self.Lambda_raw = nn.Parameter(torch.zeros(states))
        self.log_step = nn.Parameter(torch.zeros(states))
        self.B = nn.Parameter(torch.zeros(states, h_in))
        self.C = nn.Parameter(torch.zeros(h_out, states))
        self.D = nn.Parameter(torch.zeros(h_in) if h_in == h_out else torch.zeros(h_out, h_in))

    def transition(self, u: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """A and gamma B u of (..., Hin) inputs and (...) gaps in ms; (..., P) each."""
        eigenvalues = -(functional.softplus(self.Lambda_raw) + 1e-3)
        exponent = eigenvalues * (self.log_step.exp() * self.step_rescale * dt[..., None]).clamp(min=0)
        drive = functional.linear(u, self.B)
        if not self.dirac:
            drive = drive * torch.expm1(exponent) / eigenvalues
        return exponent.exp(), drive

    def read(self, x: Tensor, u: Tensor) -> Tensor:
        """C x + D u of (..., P) states and (..., Hin) inputs; (..., Hout)."""
        feed = self.D * u if self.D.dim() == 1 else functional.linear(u, self.D)
        return functional.linear(x, self.C) + feed

    def forward(self, u: Tensor, dt: Tensor) -> Tensor:
        """Maps (B, L, Hin) and dt (B, L) in ms to (B, L, Hout)."""
        decay, drive = self.transition(u, dt)
        if self.recurrence == "exact":
            zero = torch.zeros_like(decay)
            x, _ = diagonal_scan(decay, zero, drive, zero)
        else:
            product = decay.cumprod(1)
            x = product * (drive / (product + 1e-9)).cumsum(1)
        return self.read(x, u)


class PortLayer(nn.Module):
    """S5, pooling, norm, gate and residual."""

    def __init__(
        self, config: EventSSMPortConfig, h_in: int, h_out: int, states: int, stride: int, recurrence: str
    ) -> None:
        super().__init__()
        self.prenorm, self.stride, self.pooling_mode = config.prenorm, stride, config.pooling_mode
        self.ssm_block = RealS5(config, h_in, h_out, states, recurrence)
        self.proj = nn.Linear(h_in, h_out)  # Part of every checkpoint, used by none of these networks.
        self.gate = nn.Linear(h_out, h_out)
        self.norm_in, self.norm_out = config.norm(h_out), config.norm(h_out)
        self.skip_proj = nn.Identity() if h_in == h_out else nn.Linear(h_in, h_out)

    def forward(self, x: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, L, Hin) and dt (B, L) in ms to (B, L // S, Hout) and (B, L // S)."""
        y = self.ssm_block(x, dt)
        if self.stride > 1:
            y, pooled_dt = pool_groups(y, dt, self.stride, self.pooling_mode)
            x, _ = pool_groups(x, dt, self.stride, self.pooling_mode)
            dt = pooled_dt
        if self.prenorm:
            y = _rows(self.norm_in, y)
        y = self.skip_proj(x) + y * self.gate(functional.gelu(y)).sigmoid()
        return (y if self.prenorm else _rows(self.norm_out, y)), dt


class PortStage(nn.Module):
    """A strided layer and its followers."""

    def __init__(self, config: EventSSMPortConfig, h_in: int, h_out: int, states: int, recurrence: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            PortLayer(config, h_out if n else h_in, h_out, states, 1 if n else config.pooling_stride, recurrence)
            for n in range(config.num_layers_per_stage)
        )

    def forward(self, x: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the layers in order."""
        for layer in self.layers:
            x, dt = layer(x, dt)
        return x, dt


class PortEncoder(nn.Module):
    """Embedding and stages."""

    def __init__(self, config: EventSSMPortConfig, recurrence: str) -> None:
        super().__init__()
        self.encoder = nn.Embedding(config.num_embeddings + 1, config.d_model, padding_idx=0)
        self.stages = nn.ModuleList(PortStage(config, *widths, recurrence) for widths in config.stage_widths)

    def forward(self, tokens: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, L) tokens and gaps to (B, G, H) features and (B, G) durations."""
        x = self.encoder(tokens + 1)
        for stage in self.stages:
            x, dt = stage(x, dt)
        return x, dt


class EventSSMPort(nn.Module):
    """The PyTorch derivative; parameter names are those of its checkpoints.

    Args:
        config: The network.
        recurrence: `published` (cumulative products, see above) or `exact`.

    Raises:
        UserError: If the recurrence does not exist.
    """

    def __init__(self, config: EventSSMPortConfig, recurrence: str = "published") -> None:
        super().__init__()
        if recurrence not in RECURRENCES:
            raise UserError(f"recurrence {recurrence!r} does not exist; choose one of {', '.join(RECURRENCES)}")
        self.config = config
        self.encoder = PortEncoder(config, recurrence)
        self.decoder = nn.Linear(config.width, config.num_classes)
        self.attn_pool = nn.Linear(config.width, 1) if config.attention_pool else None

    def forward(self, tokens: Tensor, dt: Tensor, lengths: Tensor) -> Tensor:
        """Classifies a padded batch.

        Args:
            tokens: (B, L) int64, -1 on padded positions.
            dt: (B, L) gap of each event in ms, 0 on padded positions; negative gaps count as 0.
            lengths: (B,) int64, events before the padding.

        Returns:
            (B, C) logits; the decoder's bias for samples without a complete group, in every mode.
        """
        dt = dt.to(self.decoder.weight.dtype).clamp(min=0)
        if tokens.shape[1] < self.config.total_downsampling:
            return self.decoder(dt.new_zeros(tokens.shape[0], self.config.width))
        x, dt = self.encoder(tokens, dt)
        groups = torch.div(lengths, self.config.total_downsampling, rounding_mode="floor")
        return self.decoder(torch.where(groups[:, None] > 0, self.pool(x, dt, groups), 0))

    def stream_program(self, front_end: TokenDt, labels: tuple[str, ...] = ()) -> StreamProgram:
        """The exact event-by-event form of this network; see `models.event_ssm.port_stream`.

        Args:
            front_end: Token rule, sensor and gap convention the network was trained with.
            labels: Class names in logit order.
        """
        # The program's stages are made of the classes above, so it can only be imported once they exist.
        from models.event_ssm.port_stream import stream_program

        return stream_program(self, front_end, labels)

    def pool(self, x: Tensor, dt: Tensor, groups: Tensor) -> Tensor:
        """Reduces (B, G, H) over the first `groups` (B,) positions, at least one; (B, H)."""
        counts = groups.clamp(min=1)
        if self.config.classification_mode == "last":
            return x[torch.arange(x.shape[0], device=x.device), counts - 1]
        valid = torch.arange(x.shape[1], device=x.device) < counts[:, None]
        if self.config.classification_mode == "attnpool":
            assert self.attn_pool is not None
            weight = self.attn_pool(x)[..., 0].masked_fill(~valid, -torch.inf).softmax(1)
        else:
            weight = valid.to(x.dtype)
            if self.config.classification_mode == "timepool":
                weight = weight * (dt + EPS)
            weight = weight / weight.sum(1, keepdim=True)
        return (x * weight[..., None]).sum(1)


def _rows(norm: nn.Module, x: Tensor) -> Tensor:
    """Applies a norm of (N, H) rows to (B, L, H)."""
    return norm(x.reshape(-1, x.shape[-1])).reshape(x.shape)
