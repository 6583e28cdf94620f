"""The network's forward pass for training on a CPU, in a third of the time.

Everything that the first layer does before its groups depends on the token alone, so it is done once per row of the
token table instead of once per event. And a layer with stride S needs its state at every S-th event only:

    x_{jS+S} = exp(ΛΔ (dt_{jS+1} + .. + dt_{jS+S})) x_{jS} + Σ_{i=1..S} exp(ΛΔ (dt_{jS+i+1} + .. + dt_{jS+S})) b_{jS+i}

so a weighted sum over each group and a scan over groups take the place of the scan over events. The result is that of
`EventSSM.forward` up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from models.event_ssm import EventSSM
from models.event_ssm.layers import SequenceLayer
from models.event_ssm.pooling import EPS
from neurocompile.ops.diagonal_scan import diagonal_scan

CACHED_ELEMENTS = 1 << 17
"""Elements of each temporary: few enough for a core's cache."""


def applies(model: nn.Module) -> bool:
    """Whether the first layer may be rewritten: its norm acts on single events, and its input does not depend on dt."""
    if not isinstance(model, EventSSM):
        return False
    config = model.config
    return config.discretization != "zoh" and config.pooling_stride > 1 and config.prenorm and not config.batchnorm


def forward(model: EventSSM, tokens: Tensor, dt: Tensor, lengths: Tensor) -> Tensor:
    """Logits as `model(tokens, dt, lengths)` gives them; the model must satisfy `applies`.

    Args:
        model: The network.
        tokens: (B, L) int64, -1 on padded positions.
        dt: (B, L) gaps in ms.
        lengths: (B,) int64.

    Returns:
        (B, C).
    """
    if tokens.shape[1] < model.config.total_downsampling:
        return model(tokens, dt, lengths)
    dt = dt.to(model.decoder.weight.dtype)
    first, *others = model.layers()
    tokens = torch.where(tokens == -1, model.config.num_embeddings - 1, tokens)
    x, dt = first_layer(first, model.embedding.weight, tokens, dt)
    for layer in others:
        x, dt = layer(x, dt)
    return model.decoder(model.pool(x, dt, lengths))


def first_layer(layer: SequenceLayer, table: Tensor, tokens: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """What `layer(table[tokens], dt)` gives.

    Args:
        layer: With a stride S > 1 and prenorm.
        table: (V, H) token table.
        tokens: (B, L) int64 in [0, V).
        dt: (B, L) gaps in ms.

    Returns:
        (B, L // S, Hout) features and (B, L // S) durations.
    """
    batch, stride, s5 = len(tokens), layer.stride, layer.s5
    groups = tokens.shape[1] // stride
    normed = layer.norm(table)
    states = s5.read(*_states(s5, normed, tokens, dt, groups))
    tokens, dt = (value[:, : groups * stride].reshape(batch * groups, stride) for value in (tokens, dt))
    pooled = _pool(torch.cat([normed, table], 1), tokens, dt, layer.pooling_mode).view(batch, groups, -1)
    u, x = pooled.chunk(2, -1)
    return layer.skip(x) + layer.mix(states + s5.feed(u)), dt.sum(1).view(batch, groups)


def _states(s5: nn.Module, normed: Tensor, tokens: Tensor, dt: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """(B, groups, P') states at the first event of every group."""
    drive = s5.drive(normed, dt)
    begin = [functional.embedding(tokens[:, 0], part) for part in drive]
    if groups == 1:
        return begin[0][:, None], begin[1][:, None]
    inner = slice(1, (groups - 1) * s5.stride + 1)
    tokens, dt = (value[:, inner].reshape(len(tokens), groups - 1, s5.stride) for value in (tokens, dt))
    total = dt.sum(2)
    after = total[..., None] - dt.cumsum(2)
    real, imaginary, step = s5.rates()
    sums = _GroupSums.apply(*drive, real * step, imaginary * step, tokens, after)
    inputs = [torch.cat([first[:, None], rest], 1) for first, rest in zip(begin, sums, strict=True)]
    # The first decay meets a zero state, whatever it is.
    return diagonal_scan(*s5.decay(functional.pad(total, (1, 0))), *inputs)


def _pool(table: Tensor, tokens: Tensor, dt: Tensor, mode: str) -> Tensor:
    """(N, H) pooled rows of (V, H) `table` for N groups of S tokens, as `event_pool`."""
    if mode == "last":
        return functional.embedding(tokens[:, 0], table)
    if mode == "avgpool":
        return functional.embedding_bag(tokens, table, mode="mean")
    weight = dt + EPS
    weight = weight / weight.sum(1, keepdim=True)
    return functional.embedding_bag(tokens, table, mode="sum", per_sample_weights=weight)


class _GroupSums(torch.autograd.Function):
    """s = Σ_i exp((r + i ω) after_i) b[token_i], complex as pairs, over the last axis of `tokens` and `after`."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        b_re, b_im, rate, omega, tokens, after = inputs
        shape = (*tokens.shape[:2], b_re.shape[1])
        s_re, s_im = b_re.new_empty(shape), b_re.new_empty(shape)
        # Derivative of s by r; that by ω is i times it.
        m_re, m_im = b_re.new_empty(shape), b_re.new_empty(shape)
        for rows in _parts(tokens, b_re.shape[1]):
            span = after[rows][..., None]
            w_re, w_im = _weights(span, rate, omega)
            t_re, t_im = functional.embedding(tokens[rows], b_re), functional.embedding(tokens[rows], b_im)
            c_re, c_im = w_re * t_re - w_im * t_im, w_re * t_im + w_im * t_re
            s_re[rows], s_im[rows] = c_re.sum(2), c_im.sum(2)
            m_re[rows], m_im[rows] = c_re.mul_(span).sum(2), c_im.mul_(span).sum(2)
        ctx.save_for_backward(b_re, rate, omega, tokens, after, m_re, m_im)
        return s_re, s_im

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_re: Tensor, g_im: Tensor) -> tuple[Tensor | None, ...]:
        b_re, rate, omega, tokens, after, m_re, m_im = ctx.saved_tensors
        d_re, d_im = torch.zeros_like(b_re), torch.zeros_like(b_re)
        count = len(b_re)
        for rows in _parts(tokens, b_re.shape[1]):
            w_re, w_im = _weights(after[rows][..., None], rate, omega)
            h_re, h_im = g_re[rows][:, :, None], g_im[rows][:, :, None]
            grads = (w_re * h_re + w_im * h_im, w_re * h_im - w_im * h_re)
            for gradient, part in zip((d_re, d_im), grads, strict=True):
                gradient += torch.ops.aten.embedding_dense_backward(part, tokens[rows], count, -1, False)
        d_rate = (g_re * m_re + g_im * m_im).sum((0, 1))
        d_omega = (g_im * m_re - g_re * m_im).sum((0, 1))
        return d_re, d_im, d_rate, d_omega, None, None


def _weights(span: Tensor, rate: Tensor, omega: Tensor) -> tuple[Tensor, Tensor]:
    """exp((r + i ω) span)."""
    modulus, angle = (span * rate).exp_(), span * omega
    return modulus * angle.cos(), modulus * angle.sin()


def _parts(tokens: Tensor, width: int) -> list[slice]:
    """Slices of the batch whose temporaries stay in cache."""
    size = max(1, CACHED_ELEMENTS // (tokens.shape[1] * tokens.shape[2] * width))
    return [slice(begin, begin + size) for begin in range(0, len(tokens), size)]
