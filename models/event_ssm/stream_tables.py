"""The tables of event-ssm's stream program: which stage reads, writes and resets what, and when it fires."""

from __future__ import annotations

from typing import Any

from torch import nn

from models.event_ssm import stream as bodies
from models.event_ssm.program_tables import finish, stage_outputs
from models.event_ssm.stream import CHUNK_ITEMS, CHUNK_LIMIT, StageNames
from models.tables import Tables
from neurocompile.program import ChunkSpec, StreamProgram, TensorSpec, Trigger
from runtime.front_ends import TokenDt
from runtime.program import ITEMS, REQUEST

SUM, GROUPS = "head.sum", "head.groups"


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
    source: str = ITEMS
    inputs: tuple[str, ...] = ("token", "dt")
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
    chunk = _chunk(tables, model, mode)
    return finish(tables, "event_ssm", model, front_end, labels, chunk)


def _layer_states(tables: Tables, names: StageNames, layers: nn.ModuleList, begin: int) -> list[str]:
    """Adds the S5 states of layers `begin`.. and returns their names."""
    states = []
    for number, layer in list(enumerate(layers))[begin:]:
        states += [tables.state(name, layer.s5.Lambda_re.shape[0]) for name in names.x(number)]
    return states


def _unstrided(
    tables: Tables, s: int, layers: nn.ModuleList, embed: nn.Module, source: str, inputs: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    names = StageNames(s)
    xs = tuple(_layer_states(tables, names, layers, 0))
    outputs = stage_outputs(f"stage{s}", layers[0].gate.out_features)
    tables.stage(names.step, bodies.Step(embed, layers), Trigger(source), inputs, outputs=outputs, reads=xs, writes=xs)
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

    values: tuple[TensorSpec, ...] = ()
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
        outputs=stage_outputs(f"stage{s}", h_out),
        reads=(*held, *pools, duration, *xs),
        writes=xs,
        resets=(*pools, duration),
    )
    return group, (names.z, names.gap)


def _chunk(tables: Tables, model: Any, mode: str) -> ChunkSpec | None:
    """The chunk form: at a period boundary the pools are empty, so it neither reads nor writes them."""
    period = model.config.total_downsampling
    items = -(-CHUNK_ITEMS // period) * period
    if items > CHUNK_LIMIT:
        return None
    tables.modules["chunk"] = bodies.Chunk(model.embedding, model.stages, mode)
    names = [state.name for state in tables.states]
    writes = tuple(name for name in names if not name.endswith((".pool_e", ".pool_u", ".duration")))
    reads = tuple(name for name in writes if not name.endswith((".y", ".skip")))
    return ChunkSpec("chunk", items, ("token", "dt"), reads, writes)
