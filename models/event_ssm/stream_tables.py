"""The tables of event-ssm's stream program: which stage reads, writes and resets what, and when it fires."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from models.event_ssm import stream as bodies
from models.event_ssm.stream import CHUNK_ITEMS, CHUNK_LIMIT, StageNames
from neurocompile.program import ChunkSpec, ProgramSpec, StageSpec, StateSpec, StreamProgram, TensorSpec, Trigger
from runtime.front_ends import TokenDt
from runtime.program import ITEMS, REQUEST

SUM, GROUPS = "head.sum", "head.groups"


class Tables:
    """Collects stages and states while walking down the network."""

    def __init__(self) -> None:
        self.stages: list[StageSpec] = []
        self.states: list[StateSpec] = []
        self.modules: dict[str, nn.Module] = {}
        self.chunk_reads: list[str] = []
        self.chunk_writes: list[str] = []

    def state(self, name: str, *shape: int, dtype: str = "float32") -> str:
        """Adds a state and returns its name."""
        self.states.append(StateSpec(name, dtype, shape))
        return name

    def stage(self, name: str, module: nn.Module, trigger: Trigger, inputs: tuple[str, ...], **table: Any) -> str:
        """Adds a stage and returns its name."""
        self.stages.append(StageSpec(name, trigger, inputs, **table))
        self.modules[name] = module
        return name


def stream_program(model: Any, front_end: TokenDt, labels: tuple[str, ...] = ()) -> StreamProgram:
    """The stream program of a trained `EventSSM`.

    Args:
        model: The network, in evaluation mode.
        front_end: Token rule, sensor and gap convention it was trained with.
        labels: Class names in logit order.

    Returns:
        The program; its modules are the network's own.
    """
    tables = Tables()
    source, inputs = ITEMS, ("token", "dt")
    embed: nn.Module = model.embedding
    for s, layers in enumerate(model.stages):
        add = _strided if layers[0].stride > 1 else _unstrided
        source, inputs = add(tables, s, layers, embed, source, inputs)
        embed = nn.Identity()
    width, mode = model.decoder.in_features, model.config.classification_mode
    tables.state(SUM, 2, width)
    tables.state(GROUPS, dtype="int64")
    head = {"reads": (SUM, GROUPS), "writes": (SUM, GROUPS)}
    tables.stage("head", bodies.Head(mode), Trigger(source), inputs, **head)
    logits = TensorSpec("logits", "float32", (model.config.num_classes,))
    readout = bodies.Readout(model.decoder, mode)
    tables.stage("readout", readout, Trigger(REQUEST), ("elapsed",), outputs=(logits,), reads=(SUM, GROUPS))
    period = model.config.total_downsampling
    chunk = _chunk(tables, model, period, mode)
    spec = ProgramSpec(
        family="event_ssm",
        front_end=front_end.to_json(),
        items=front_end.items,
        states=tuple(tables.states),
        stages=tuple(tables.stages),
        chunk=chunk,
        period=period,
        first_readout=period,
        labels=labels,
        notes={
            "flush": "incomplete groups at the end of a stream are not part of the answer, as published",
            "dt": "published semantics: event k is processed when event k+1 arrives"
            if front_end.dt == "next"
            else "every event is processed when it arrives",
        },
    )
    return StreamProgram(spec, tables.modules, lambda items: offline(model, items))


def offline(model: Any, items: Mapping[str, np.ndarray]) -> np.ndarray:
    """The network's own forward in float64 over a whole stream.

    The stream is padded to full groups with gaps of 0, as in published evaluation, so that `timepool` divides by the
    whole duration; mode `last` is only defined on the unpadded stream.

    Args:
        model: The network.
        items: `token` and `dt`, (N,) each.

    Returns:
        (C,) float64 logits.
    """
    double = copy.deepcopy(model).double().eval()
    count, period = len(items["token"]), model.config.total_downsampling
    pad = 0 if model.config.classification_mode == "last" else -count % period
    token = torch.as_tensor(np.pad(items["token"], (0, pad), constant_values=-1))
    dt = torch.as_tensor(np.pad(items["dt"].astype(np.float64), (0, pad)))
    with torch.inference_mode():
        return double(token[None], dt[None], torch.tensor([count]))[0].numpy()


def _layer_states(tables: Tables, names: StageNames, layers: nn.ModuleList, begin: int) -> list[str]:
    """Adds the S5 states of layers `begin`.. and returns their names."""
    states = []
    for number, layer in list(enumerate(layers))[begin:]:
        states += [tables.state(name, layer.s5.Lambda_re.shape[0]) for name in names.x(number)]
    return states


def _outputs(names: StageNames, width: int) -> tuple[TensorSpec, TensorSpec]:
    return TensorSpec(names.z, "float32", (width,)), TensorSpec(names.gap, "float32", (), unit="ms")


def _unstrided(
    tables: Tables, s: int, layers: nn.ModuleList, embed: nn.Module, source: str, inputs: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    names = StageNames(s)
    xs = tuple(_layer_states(tables, names, layers, 0))
    outputs = _outputs(names, layers[0].gate.out_features)
    tables.stage(names.step, bodies.Step(embed, layers), Trigger(source), inputs, outputs=outputs, reads=xs, writes=xs)
    tables.chunk_reads += xs
    tables.chunk_writes += xs
    return names.step, (names.z, names.gap)


def _strided(
    tables: Tables, s: int, layers: nn.ModuleList, embed: nn.Module, source: str, inputs: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    names, first = StageNames(s), layers[0]
    stride, prenorm, mode = first.stride, first.prenorm, first.pooling_mode
    h_in, h_out = first.s5.B.shape[1], first.gate.out_features
    x0 = tuple(_layer_states(tables, names, layers[:1], 0))
    pools: tuple[str, ...] = ()
    if mode != "last":
        pools = (tables.state(names.pool_e, h_in), *([tables.state(names.pool_u, h_in)] if prenorm else []))
    duration = tables.state(names.duration)
    held = (tables.state(names.y, h_out), *([tables.state(names.skip, h_out)] if mode == "last" else []))
    xs = tuple(_layer_states(tables, names, layers, 1))

    values = ()
    if mode == "last":
        values = (TensorSpec(names.e, "float32", (h_in,)), TensorSpec(names.u, "float32", (h_in,)))
    moved = (*x0, *pools, duration)
    item = tables.stage(
        names.item, bodies.Item(embed, first), Trigger(source), inputs, outputs=values, reads=moved, writes=moved
    )
    taken = tuple(value.name for value in values)
    tables.stage(names.first, bodies.First(first), Trigger(item, stride, 0), taken, reads=x0, writes=held)
    group = tables.stage(
        names.group,
        bodies.Group(layers, stride),
        Trigger(item, stride, stride - 1),
        (),
        outputs=_outputs(names, h_out),
        reads=(*held, *pools, duration, *xs),
        writes=xs,
        resets=(*pools, duration),
    )
    tables.chunk_reads += (*x0, *xs)
    tables.chunk_writes += (*x0, *held, *xs)
    return group, (names.z, names.gap)


def _chunk(tables: Tables, model: Any, period: int, mode: str) -> ChunkSpec | None:
    items = -(-CHUNK_ITEMS // period) * period
    if items > CHUNK_LIMIT:
        return None
    tables.modules["chunk"] = bodies.Chunk(model.embedding, model.stages, mode)
    reads, writes = (*tables.chunk_reads, SUM, GROUPS), (*tables.chunk_writes, SUM, GROUPS)
    return ChunkSpec("chunk", items, ("token", "dt"), reads, writes)
