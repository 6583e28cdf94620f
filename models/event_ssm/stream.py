"""The stream program of event-ssm: the exact multi-rate recurrence of a trained network.

A stage of the network with stride S becomes three stages of the program:

    item    every item:          x⁰ ← A(dt) x⁰ + B'u,  pools u and e
    first   item 0 of a group:   y ← κ Re(C x⁰)                 (the published stride keeps index 0 of every group)
    group   item S-1 of a group: z = skip(ē) + mix(y + D ū), then the remaining layers with dt = the group's duration

so that at a typical event only one state vector of the first network stage moves. Stride 1 needs no groups: one stage
`step` does everything. The head sums what the last group yields, with a compensated sum, so that streams of any
length keep their precision; the decoder runs on request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.event_ssm.layers import SequenceLayer
from models.sums import two_sum
from neurocompile.ops.diagonal_scan import diagonal_scan

EPS = 1e-6
CHUNK_ITEMS = 256
CHUNK_LIMIT = 16384


@dataclass(frozen=True)
class StageNames:
    """The names of one network stage's states and values in the program."""

    s: int

    def x(self, layer: int) -> tuple[str, str]:
        """The S5 state of a layer, real and imaginary part."""
        return f"stage{self.s}.layer{layer}.x_re", f"stage{self.s}.layer{layer}.x_im"

    def __getattr__(self, name: str) -> str:
        return f"stage{self.s}.{name}"


def advance(layer: SequenceLayer, u: Tensor, dt: Tensor, re: Tensor, im: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the layer's recurrence: A(dt) x + B'u.

    Args:
        layer: The layer.
        u: (Hin,) normalised input.
        dt: () gap in ms.
        re: (P',) real part of the state.
        im: (P',) imaginary part.

    Returns:
        The new state's parts.
    """
    a_re, a_im = layer.s5.decay(dt)
    b_re, b_im = layer.s5.drive(u, dt)
    return a_re * re - a_im * im + b_re, a_re * im + a_im * re + b_im


def pre(layer: SequenceLayer, x: Tensor) -> Tensor:
    """The S5 input: normalised with prenorm, else as it is."""
    return layer.norm(x) if layer.prenorm else x


def post(layer: SequenceLayer, x: Tensor) -> Tensor:
    """The layer's output: normalised without prenorm."""
    return x if layer.prenorm else layer.norm(x)


class Item(nn.Module):
    """Stage `item`: the first layer's recurrence and the group's pools."""

    def __init__(self, embed: nn.Module, layer: SequenceLayer) -> None:
        super().__init__()
        self.embed, self.layer = embed, layer
        self.mode = layer.pooling_mode

    def forward(self, value: Tensor, dt: Tensor, re: Tensor, im: Tensor, *pools: Tensor) -> tuple[Tensor, ...]:
        """`last`: outputs e and u; otherwise the pools of e (and of u with prenorm); then the duration."""
        e = self.embed(value)
        u = pre(self.layer, e)
        re, im = advance(self.layer, u, dt, re, im)
        *sums, duration = pools
        pooled = (e, u) if self.layer.prenorm else (e,)
        if self.mode == "last":
            return e, u, re, im, duration + dt
        if self.mode == "timepool":
            pooled = tuple((dt + EPS) * x for x in pooled)
        return re, im, *(total + x for total, x in zip(sums, pooled, strict=True)), duration + dt


class First(nn.Module):
    """Stage `first`: reads the state out at index 0 of the group."""

    def __init__(self, layer: SequenceLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """`last`: (e, u, re, im) -> y with feed-through, skip; otherwise (re, im) -> y."""
        *values, re, im = tensors
        y = self.layer.s5.read(re, im)
        if not values:
            return (y,)
        e, u = values
        return y + self.layer.s5.feed(u), self.layer.skip(e)


class Group(nn.Module):
    """Stage `group`: closes the first layer's group and runs the remaining layers at the group rate."""

    def __init__(self, layers: nn.ModuleList, stride: int) -> None:
        super().__init__()
        self.layers, self.stride = layers, stride
        self.mode = layers[0].pooling_mode

    def forward(self, *states: Tensor) -> tuple[Tensor, ...]:
        """(y, pools.., duration, x of the remaining layers..) -> z, gap, new x of the remaining layers."""
        first, prenorm = self.layers[0], self.layers[0].prenorm
        if self.mode == "last":
            y, skip, duration, *xs = states
        else:
            y, *rest = states
            pools, (duration, *xs) = rest[: 1 + prenorm], rest[1 + prenorm :]
            weight = duration + self.stride * EPS if self.mode == "timepool" else float(self.stride)
            e, *u = (pool / weight for pool in pools)
            y = y + first.s5.feed(u[0] if prenorm else e)
            skip = first.skip(e)
        z = post(first, skip + first.mix(y))
        z, xs = remaining(self.layers, z, duration, xs)
        return z, duration.clone(), *xs


class Step(nn.Module):
    """Stage `step` of a network stage without pooling: every layer at every item."""

    def __init__(self, embed: nn.Module, layers: nn.ModuleList) -> None:
        super().__init__()
        self.embed, self.layers = embed, layers

    def forward(self, value: Tensor, dt: Tensor, *xs: Tensor) -> tuple[Tensor, ...]:
        """(input, dt, x of all layers..) -> z, gap, new x of all layers."""
        first = self.layers[0]
        e = self.embed(value)
        u = pre(first, e)
        re, im = advance(first, u, dt, *xs[:2])
        z = post(first, first.skip(e) + first.mix(first.s5.read(re, im) + first.s5.feed(u)))
        z, rest = remaining(self.layers, z, dt, xs[2:])
        return z, dt.clone(), re, im, *rest


def remaining(layers: nn.ModuleList, z: Tensor, dt: Tensor, xs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Steps the layers after the first.

    Args:
        layers: All layers of a network stage.
        z: (H,) output of the first.
        dt: () gap in ms.
        xs: Real and imaginary state of every further layer, in turn.

    Returns:
        The last layer's output and the new states.
    """
    new: list[Tensor] = []
    for number, layer in enumerate(list(layers)[1:]):
        u = pre(layer, z)
        re, im = advance(layer, u, dt, *xs[2 * number : 2 * number + 2])
        z = post(layer, z + layer.mix(layer.s5.read(re, im) + layer.s5.feed(u)))
        new += [re, im]
    return z, new


class Head(nn.Module):
    """Stage `head`: the weighted sum over groups of the classification mode."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, z: Tensor, gap: Tensor, total: Tensor, groups: Tensor) -> tuple[Tensor, ...]:
        """z (H,), gap () of one group, or (M, H), (M,) of several -> new sum (2, H), new count ()."""
        rows, gaps = z.reshape(-1, z.shape[-1]), gap.reshape(-1, 1)
        if self.mode == "last":
            return torch.stack((rows[-1], torch.zeros_like(rows[-1]))), groups + rows.shape[0]
        weighted = rows * (gaps + EPS) if self.mode == "timepool" else rows
        return two_sum(total, weighted.sum(0)), groups + rows.shape[0]


class Readout(nn.Module):
    """Stage `readout`: the decoder on what the head has summed.

    Before the first complete group the answer is the decoder's bias. Without any elapsed time (`timepool` on
    simultaneous events only), the plain mean over groups takes the place of the published 0/0.
    """

    def __init__(self, decoder: nn.Linear, mode: str) -> None:
        super().__init__()
        self.decoder, self.mode = decoder, mode

    def forward(self, elapsed: Tensor, total: Tensor, groups: Tensor) -> tuple[Tensor]:
        """elapsed () in ms, sum (2, H), count () -> logits (C,)."""
        z = total[0] + total[1]
        if self.mode != "last":
            z = z / self.weight(elapsed, groups.clamp(min=1).to(z.dtype))
        return (self.decoder(z),)

    def weight(self, elapsed: Tensor, groups: Tensor) -> Tensor:
        """What the sum is divided by."""
        return torch.where(elapsed > 0, elapsed, groups * EPS) if self.mode == "timepool" else groups


class Chunk(nn.Module):
    """The whole network over a multiple of the period, from carried state to carried state."""

    def __init__(self, embedding: nn.Embedding, stages: nn.ModuleList, mode: str) -> None:
        super().__init__()
        self.embedding, self.stages = embedding, stages
        self.head = Head(mode)

    def forward(self, token: Tensor, dt: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """(token (N,), dt (N,), x of all layers.., sum, count) -> per network stage: x.., y (and skip); sum, count."""
        *xs, total, groups = states
        e, new = self.embedding(token), []
        for layers in self.stages:
            for layer in layers:
                re, im, *xs = xs
                e, dt, written = self.run(layer, e, dt, re, im)
                new += written
        return *new, *self.head(e, dt, total, groups)

    @staticmethod
    def run(layer: SequenceLayer, e: Tensor, dt: Tensor, re: Tensor, im: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """One layer over (N, Hin) items; returns its output, gaps, and the states it leaves behind."""
        u, stride = pre(layer, e), layer.stride
        a_re, a_im = layer.s5.decay(dt)
        b_re, b_im = layer.s5.drive(u, dt)
        x_re, x_im = (x[0] for x in diagonal_scan(*(v[None] for v in (a_re, a_im, b_re, b_im, re, im))))
        written = [x_re[-1], x_im[-1]]
        if stride == 1:
            y, skip = layer.s5.read(x_re, x_im) + layer.s5.feed(u), layer.skip(e)
            return post(layer, skip + layer.mix(y)), dt, written
        y = layer.s5.read(x_re[::stride], x_im[::stride])
        gaps = dt.reshape(-1, stride)
        if layer.pooling_mode == "last":
            y, skip = y + layer.s5.feed(u[::stride]), layer.skip(e[::stride])
            written += [y[-1], skip[-1]]
        else:
            weights = gaps + EPS if layer.pooling_mode == "timepool" else torch.ones_like(gaps)
            weights = (weights / weights.sum(1, keepdim=True))[..., None]
            written += [y[-1]]
            pooled_u, pooled_e = ((x.reshape(-1, stride, x.shape[-1]) * weights).sum(1) for x in (u, e))
            y, skip = y + layer.s5.feed(pooled_u), layer.skip(pooled_e)
        return post(layer, skip + layer.mix(y)), gaps.sum(1), written
