"""The stream program of the PyTorch derivative (`EventSSMPort`): exact, event by event.

The derivative pools y = C x + D u over a group. Both maps are linear, so the program pools x and u instead and applies
C and D once per group:

    item    every item:          x ← recurrence,  pools x and u
    group   item S-1 of a group: y = C x̄ + D ū, gate and residual, then the remaining layers with the group's duration

The published recurrence by cumulative products is kept, with the product a and the sum Σ gamma B u / (a + 1e-9) as its
two state vectors. The head sums (z w, w), compensated; `attnpool` is a softmax over the groups so far, with a running
maximum.
There is no chunk form.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.event_ssm.port import EPS, PortLayer, PortStage, RealS5
from models.event_ssm.program_tables import finish, stage_outputs
from models.sums import two_sum
from models.tables import Tables
from neurocompile.program import StreamProgram, TensorSpec, Trigger
from runtime.front_ends import TokenDt
from runtime.program import ITEMS, REQUEST

SUM, MAXIMUM = "head.sum", "head.maximum"


class PortEmbed(nn.Module):
    """Row 0 of the derivative's table is the padding."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, token: Tensor) -> Tensor:
        """() tokens -> (H,)."""
        return self.embedding(token + 1)


def advance(ssm: RealS5, u: Tensor, dt: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One step of the recurrence.

    Args:
        ssm: The layer.
        u: (Hin,) input.
        dt: () gap in ms.
        states: `exact`: x (P,); `published`: product and sum (P,) each.

    Returns:
        x (P,) and the new states.
    """
    decay, drive = ssm.transition(u, dt)
    if ssm.recurrence == "exact":
        x = decay * states[0] + drive
        return x, (x,)
    product = decay * states[0]
    total = states[1] + drive / (product + 1e-9)
    return product * total, (product, total)


def finish_layer(layer: PortLayer, x: Tensor, u: Tensor, skip: Tensor) -> Tensor:
    """y = C x + D u, norm, gate and residual of one position; (Hout,)."""
    y = layer.ssm_block.read(x, u)
    if layer.prenorm:
        y = layer.norm_in(y[None])[0]
    y = layer.skip_proj(skip) + y * layer.gate(functional.gelu(y)).sigmoid()
    return y if layer.prenorm else layer.norm_out(y[None])[0]


class PortItem(nn.Module):
    """Stage `item`."""

    def __init__(self, embed: nn.Module, layer: PortLayer) -> None:
        super().__init__()
        self.embed, self.layer = embed, layer

    def forward(self, value: Tensor, dt: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """`last`: (states.., duration) -> x, u, states.., duration; else also the pools of x and u before duration."""
        mode, u = self.layer.pooling_mode, self.embed(value)
        count = state_count(self.layer)
        x, states = advance(self.layer.ssm_block, u, dt, tensors[:count])
        *pools, duration = tensors[count:]
        if mode == "last":
            return x, u, *states, duration + dt
        weight = dt + EPS if mode == "timepool" else 1.0
        gap = dt + EPS if mode == "timepool" else dt
        pooled = [pool + weight * new for pool, new in zip(pools, (x, u), strict=True)]
        return *states, *pooled, duration + gap


class PortGroup(nn.Module):
    """Stage `group`."""

    def __init__(self, layers: nn.ModuleList, stride: int) -> None:
        super().__init__()
        self.layers, self.stride = layers, stride

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """(x or its pool, u or its pool, duration, states of the remaining layers..) -> z, gap, new states."""
        x, u, duration, *states = tensors
        mode = self.layers[0].pooling_mode
        if mode != "last":
            weight = duration if mode == "timepool" else float(self.stride)
            x, u = x / weight, u / weight
        z = finish_layer(self.layers[0], x, u, u)
        z, states = remaining(self.layers, z, duration, states)
        return z, duration.clone(), *states


class PortStep(nn.Module):
    """Stage `step` of a network stage without pooling."""

    def __init__(self, embed: nn.Module, layers: nn.ModuleList) -> None:
        super().__init__()
        self.embed, self.layers = embed, layers

    def forward(self, value: Tensor, dt: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """(input, dt, states of all layers..) -> z, gap, new states."""
        first, u = self.layers[0], self.embed(value)
        count = state_count(first)
        x, new = advance(first.ssm_block, u, dt, states[:count])
        z, rest = remaining(self.layers, finish_layer(first, x, u, u), dt, states[count:])
        return z, dt.clone(), *new, *rest


def remaining(layers: nn.ModuleList, z: Tensor, dt: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Steps the layers after the first; see `models.event_ssm.stream.remaining`."""
    new: list[Tensor] = []
    for number, layer in enumerate(list(layers)[1:]):
        count = state_count(layer)
        x, written = advance(layer.ssm_block, z, dt, states[number * count : (number + 1) * count])
        z = finish_layer(layer, x, z, z)
        new += written
    return z, new


def state_count(layer: PortLayer) -> int:
    """State vectors of one layer."""
    return 1 if layer.ssm_block.recurrence == "exact" else 2


class PortHead(nn.Module):
    """Stage `head`: sums (z w, w) over groups."""

    def __init__(self, mode: str, score: nn.Linear | None) -> None:
        super().__init__()
        self.mode = mode
        self.score = score if mode == "attnpool" else None

    def forward(self, z: Tensor, gap: Tensor, total: Tensor, *maximum: Tensor) -> tuple[Tensor, ...]:
        """z (H,), gap (), sum (2, H + 1) and for `attnpool` the largest score so far -> the new ones."""
        one = torch.ones_like(z[:1])
        if self.mode == "last":
            latest = torch.cat((z, one))
            return (torch.stack((latest, torch.zeros_like(latest))),)
        if self.score is not None:
            score = self.score(z)[0]
            largest = torch.maximum(maximum[0], score)
            total = total * (maximum[0] - largest).exp()
            weight = (score - largest).exp() * one
            return two_sum(total, torch.cat((z * weight, weight))), largest
        weight = one * (gap + EPS) if self.mode == "timepool" else one
        return (two_sum(total, torch.cat((z * weight, weight))),)


class PortReadout(nn.Module):
    """Stage `readout`; before the first complete group the decoder's bias."""

    def __init__(self, decoder: nn.Linear) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, total: Tensor) -> tuple[Tensor]:
        """Sum (2, H + 1) -> logits (C,)."""
        value = total[0] + total[1]
        weight = value[-1]
        return (self.decoder(value[:-1] / torch.where(weight > 0, weight, torch.ones_like(weight))),)


def stream_program(model: nn.Module, front_end: TokenDt, labels: tuple[str, ...] = ()) -> StreamProgram:
    """The stream program of a trained `EventSSMPort`.

    Args:
        model: The network, in evaluation mode.
        front_end: Token rule, sensor and gap convention.
        labels: Class names in logit order.

    Returns:
        The program; its modules are the network's own.
    """
    tables = Tables()
    source: str = ITEMS
    inputs: tuple[str, ...] = ("token", "dt")
    embed: nn.Module = PortEmbed(model.encoder.encoder)
    for s, stage in enumerate(model.encoder.stages):
        source, inputs = _network_stage(tables, s, stage, embed, source, inputs)
        embed = nn.Identity()
    mode = model.config.classification_mode
    states = [tables.state(SUM, 2, model.config.width + 1)]
    if mode == "attnpool":
        states.append(tables.state(MAXIMUM, initial=-1e30))
    tables.stage("head", PortHead(mode, model.attn_pool), Trigger(source), inputs, reads=states, writes=states)
    logits = TensorSpec("logits", "float32", (model.config.num_classes,))
    tables.stage("readout", PortReadout(model.decoder), Trigger(REQUEST), (), outputs=(logits,), reads=(SUM,))
    return finish(tables, "event_ssm_port", model, front_end, labels, chunk=None)


def _network_stage(
    tables: Tables, s: int, stage: PortStage, embed: nn.Module, source: str, inputs: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    layers, first = stage.layers, stage.layers[0]
    name, ssm = f"stage{s}", first.ssm_block
    states_in, h_in, h_out = ssm.B.shape[0], ssm.B.shape[1], first.gate.out_features
    own = _states(tables, name, 0, first)
    rest = [state for number, layer in list(enumerate(layers))[1:] for state in _states(tables, name, number, layer)]
    outputs = stage_outputs(name, h_out)
    result = (f"{name}.z", f"{name}.gap")
    if first.stride == 1:
        moved = (*own, *rest)
        step = PortStep(embed, layers)
        tables.stage(f"{name}.step", step, Trigger(source), inputs, outputs=outputs, reads=moved, writes=moved)
        return f"{name}.step", result
    values: tuple[TensorSpec, ...] = ()
    pools: tuple[str, ...] = ()
    if first.pooling_mode == "last":
        values = (TensorSpec(f"{name}.x", "float32", (states_in,)), TensorSpec(f"{name}.u", "float32", (h_in,)))
    else:
        pools = (tables.state(f"{name}.pool_x", states_in), tables.state(f"{name}.pool_u", h_in))
    duration = tables.state(f"{name}.duration")
    moved = (*own, *pools, duration)
    item = tables.stage(
        f"{name}.item", PortItem(embed, first), Trigger(source), inputs, outputs=values, reads=moved, writes=moved
    )
    group = tables.stage(
        f"{name}.group",
        PortGroup(layers, first.stride),
        Trigger(item, first.stride, first.stride - 1),
        tuple(value.name for value in values),
        outputs=outputs,
        reads=(*pools, duration, *rest),
        writes=tuple(rest),
        resets=(*pools, duration),
    )
    return group, result


def _states(tables: Tables, name: str, number: int, layer: PortLayer) -> list[str]:
    size, prefix = layer.ssm_block.B.shape[0], f"{name}.layer{number}"
    if layer.ssm_block.recurrence == "exact":
        return [tables.state(f"{prefix}.x", size)]
    return [tables.state(f"{prefix}.product", size, initial=1.0), tables.state(f"{prefix}.sum", size)]
