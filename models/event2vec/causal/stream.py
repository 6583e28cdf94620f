"""The causal Event2Vec as a stream program: one stage per encoder, every event answered when it arrives.

    encoder0   every event:            token = place + time;  z ← layers of the first encoder, pool ← pool + z
    encoderI   every 2^I events:       z ← layers on the pair's mean, pool ← pool + z
    head       every 2^n events:       sum ← sum + the pair's mean (compensated)
    readout    on request:             heads(sum / count)

Without pooling there is one encoder, and the head adds up its tokens. Whatever came before an event is in states of
fixed size: two inputs of each convolution, and per layer one matrix a head (`gated_linear`) or a ring of the last
`memory` keys and values (`forgetting_causal`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from models.event2vec.causal.config import CausalConfig
from models.event2vec.causal.network import CausalEncoder, CausalEvent2Vec
from models.event2vec.encoder import EPS, pool_pairs
from models.sums import two_sum
from models.tables import Tables
from neurocompile.program import ChunkSpec, StreamProgram, TensorSpec, Trigger
from runtime.errors import UserError
from runtime.front_ends import TokenDt
from runtime.program import ITEMS, REQUEST

SUM, GROUPS = "head.sum", "head.groups"
CHUNK_ITEMS = 256


class First(nn.Module):
    """Stage `encoder0`: embeds an event and runs the first encoder."""

    def __init__(self, model: CausalEvent2Vec, pooled: bool) -> None:
        super().__init__()
        self.model, self.layers = model, Layers(model.backbone[0], pooled)
        self.histories = len(model.tpe.histories)

    def forward(self, token: Tensor, dt: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """(token (), dt (), histories.., states of the layers.., pool) -> z without pooling; then the new states."""
        time, histories = self.model.tpe.step(self.model.gap(dt), *states[: self.histories])
        results = self.layers(self.model.place(token) + time, *states[self.histories :])
        split = len(results) - (len(states) - self.histories)
        return *results[:split], *histories, *results[split:]


class Next(nn.Module):
    """Stage `encoderI`: closes a pair and runs the next encoder."""

    def __init__(self, encoder: CausalEncoder) -> None:
        super().__init__()
        self.layers = Layers(encoder, True)

    def forward(self, pair: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """(sum of the pair (d,), states of the layers.., pool) -> new states."""
        return self.layers(pair / (2 + EPS), *states)


class Layers(nn.Module):
    """The layers of an encoder at one position, and the pool behind it."""

    def __init__(self, encoder: CausalEncoder, pooled: bool) -> None:
        super().__init__()
        self.encoder, self.pooled = encoder, pooled

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """(x (d,), states of the layers.., pool) -> z without pooling; new states, and with it the new pool."""
        new: list[Tensor] = []
        for layer in self.encoder.layers:
            count = len(layer.attention.states)
            x, moved = layer.step(x, *states[len(new) : len(new) + count])
            new += moved
        z = self.encoder.norm(x)
        return (*new, states[-1] + z) if self.pooled else (z, *new)


class Head(nn.Module):
    """Stage `head`: adds a token, or the mean of a pair, to the sum."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.scale = 1 / (2 + EPS) if pooled else 1.0

    def forward(self, z: Tensor, total: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """z (d,), sum (2, d), count () -> new sum and count."""
        return two_sum(total, z * self.scale), groups + 1


class Readout(nn.Module):
    """Stage `readout`: the head on the mean since the stream began; its bias before the first group."""

    def __init__(self, heads: nn.Linear) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, total: Tensor, groups: Tensor) -> tuple[Tensor]:
        """sum (2, d), count () -> logits (C,)."""
        return (self.heads((total[0] + total[1]) / (groups.to(total.dtype) + EPS)),)


class Chunk(nn.Module):
    """The whole network over many events, from carried state to carried state; for `gated_linear`."""

    def __init__(self, model: CausalEvent2Vec) -> None:
        super().__init__()
        self.model = model
        self.histories = len(model.tpe.histories)

    def forward(self, token: Tensor, dt: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """(token (N,), dt (N,), histories.., memories.., sum, count) -> the new ones."""
        model = self.model
        *carried, total, groups = states
        past, memories = [value[None] for value in carried[: self.histories]], carried[self.histories :]
        time, histories = model.tpe(model.gap(dt)[None], past)
        x, new = model.place(token)[None] + time, [value[0] for value in histories]
        for encoder in model.backbone:
            for layer in encoder.layers:
                x, memory = layer(x, memories[len(new) - self.histories][None])
                new.append(memory[0])
            x = encoder.norm(x)
            if model.config.pool_every_layer:
                x, _ = pool_pairs(x)
        return *new, two_sum(total, x[0].sum(0)), groups + x.shape[1]


def stream_program(model: CausalEvent2Vec, front_end: TokenDt, labels: tuple[str, ...] = ()) -> StreamProgram:
    """The stream program of a trained `CausalEvent2Vec`.

    Args:
        model: The network, in evaluation mode.
        front_end: Token rule, sensor and gap convention.
        labels: Class names in logit order.

    Returns:
        The program; its modules are the network's own.

    Raises:
        UserError: If the front end makes other tokens than the network takes apart.
    """
    config = model.config
    if front_end.rule != "linear" or (config.polarities, config.width, config.height) != (
        2,
        front_end.width,
        front_end.height,
    ):
        raise UserError(
            f"the network takes tokens x + {config.width} y + {config.width * config.height} p of {config.polarities} "
            f"polarities, but its front end has the rule {front_end.rule!r} and {front_end.width} x {front_end.height} "
            "pixels; give the sensor it was trained with, and rule: linear"
        )
    tables, pooled, width = Tables(), bool(config.pool_every_layer), config.d_model
    histories = [tables.state(f"time{n}", *shape) for n, shape in enumerate(model.tpe.histories)]
    source, memories = ITEMS, []
    for number, encoder in enumerate(model.backbone):
        layers = _layer_states(tables, number, encoder)
        memories += layers
        pool = [tables.state(f"encoder{number}.pool", width)] if pooled else []
        if number == 0:
            outputs = () if pooled else (TensorSpec("z", "float32", (width,)),)
            module: nn.Module = First(model, pooled)
            carried = (*histories, *layers, *pool)
            source = tables.stage(
                "encoder0", module, Trigger(source), ("token", "dt"), outputs=outputs, reads=carried, writes=carried
            )
        else:
            before, carried = f"encoder{number - 1}.pool", (*layers, *pool)
            source = tables.stage(
                f"encoder{number}",
                Next(encoder),
                Trigger(source, 2, 1),
                (),
                reads=(before, *carried),
                writes=carried,
                resets=(before,),
            )
    tables.state(SUM, 2, width)
    tables.state(GROUPS, dtype="int64")
    closes = (f"encoder{len(model.backbone) - 1}.pool",) if pooled else ()
    tables.stage(
        "head",
        Head(pooled),
        Trigger(source, 2, 1) if pooled else Trigger(source),
        () if pooled else ("z",),
        reads=(*closes, SUM, GROUPS),
        writes=(SUM, GROUPS),
        resets=closes,
    )
    logits = TensorSpec("logits", "float32", (config.num_classes,))
    tables.stage("readout", Readout(model.heads), Trigger(REQUEST), (), outputs=(logits,), reads=(SUM, GROUPS))
    period, chunk = config.total_downsampling, None
    if config.attention == "gated_linear":
        carried = (*histories, *memories, SUM, GROUPS)
        tables.modules["chunk"] = Chunk(model)
        chunk = ChunkSpec("chunk", -(-CHUNK_ITEMS // period) * period, ("token", "dt"), carried, carried)
    notes = {
        "answers": f"every event moves the states; the readout takes in groups of {period} events",
        "memory": _memory(config),
        "flush": "an incomplete group at the end of a stream is not part of the answer",
    }
    return tables.program(
        "event2vec_causal",
        front_end,
        labels,
        lambda items: offline(model, items),
        period=period,
        chunk=chunk,
        notes=notes,
    )


def _layer_states(tables: Tables, number: int, encoder: CausalEncoder) -> list[str]:
    """Adds the states of an encoder's layers and returns their names."""
    names = []
    for place, layer in enumerate(encoder.layers):
        for name, (shape, dtype, initial) in layer.attention.states.items():
            full = f"encoder{number}.layer{place}.{name}"
            names.append(tables.state(full, *shape, dtype=dtype, initial=initial))
    return names


def _memory(config: CausalConfig) -> str:
    if config.attention == "gated_linear":
        return "gated linear attention: one matrix per head and layer, whatever came before"
    return f"forgetting attention over the last {config.memory} tokens of every layer, as in training"


def offline(model: CausalEvent2Vec, items: Mapping[str, np.ndarray]) -> np.ndarray:
    """The network's own forward in float64 over a whole stream.

    Args:
        model: The network.
        items: `token` and `dt`, (N,) each.

    Returns:
        (C,) float64 logits.
    """
    double = copy.deepcopy(model).double().eval()
    token, dt = (torch.as_tensor(np.asarray(items[name])) for name in ("token", "dt"))
    with torch.inference_mode():
        return double(token[None], dt.double()[None], torch.tensor([len(token)]))[0].numpy()
