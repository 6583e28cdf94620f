"""The tables of a stream program: tensors, states, triggers, stages, readout; and their JSON form.

A program is a schedule over pure step functions of static shape. The front end turns events into *items*
(one row of named values each). Every item fires the stages whose trigger is due, in table order; a stage
reads values and states and writes values and states. Nothing here knows how a stage is computed: that is
a backend's business (graph, library, torch module), so all backends share one schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

from runtime.errors import UserError

ITEMS = "items"
REQUEST = "request"
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "bool")


@dataclass(frozen=True)
class TensorSpec:
    """A named value.

    Attributes:
        name: Unique in the program; also the graph input or output name.
        dtype: One of `DTYPES`.
        shape: Static shape, `()` for a scalar.
        domain: Half-open integer range `[low, high)` that the value is promised to lie in, or `None`.
        unit: Physical unit for people, e.g. `ms`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    domain: tuple[int, int] | None = None
    unit: str = ""


@dataclass(frozen=True)
class StateSpec:
    """A tensor that a session carries from firing to firing.

    In a stage's graph the state `x` is the input `x` and, where the stage writes it, the output `x_next`.

    Attributes:
        name: Unique in the program.
        dtype: One of `DTYPES`.
        shape: Static shape.
        initial: Value of every element after `reset`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    initial: float = 0.0

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Trigger:
    """When a stage fires.

    Attributes:
        after: `"items"` (the front end), the name of an earlier stage, or `"request"` (readout only).
        every: Fires at the firings n = 0, 1, 2, ... of `after` with n mod `every` == `phase`.
        phase: See `every`.
    """

    after: str = ITEMS
    every: int = 1
    phase: int = 0


@dataclass(frozen=True)
class StageSpec:
    """One pure step `(inputs, states read) -> (outputs, states written)`.

    Attributes:
        name: Unique in the program.
        trigger: When it fires.
        inputs: Names of values: items of the front end or outputs of earlier stages.
        outputs: The values it makes.
        reads: Names of the states it reads, in graph order.
        writes: Names of the states it writes, in graph order (graph outputs `NAME_next`).
        resets: Names of states that the runtime sets back to their initial value after the firing.
    """

    name: str
    trigger: Trigger
    inputs: tuple[str, ...]
    outputs: tuple[TensorSpec, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    resets: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChunkSpec:
    """The whole program over `items` consecutive items at once, through the scan form of its ops.

    It may run only when the number of items so far is a multiple of `ProgramSpec.period`; afterwards every
    state and every counter is what the same items would have left step by step (values between stages are not kept).

    Attributes:
        name: Name of the body.
        items: Items per call, a multiple of the program's period.
        inputs: Names of front-end values; the chunk takes them with a leading axis of `items`.
        reads: States read.
        writes: States written.
    """

    name: str
    items: int
    inputs: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class ProgramSpec:
    """Everything a session needs besides the stages' bodies.

    Attributes:
        family: Model family, e.g. `event_ssm`.
        front_end: Declaration of the front end (`kind` and its options), see `runtime.front_ends`.
        items: The values one item carries, in the front end's order.
        states: State table.
        stages: Stages in topological order; the one with a `request` trigger is the readout.
        chunk: The chunk form, or `None`.
        period: Items after which every trigger counter is back where it began.
        first_readout: Items after which the readout rests on a complete group.
        labels: Class names in logit order.
    """

    family: str
    front_end: Mapping[str, Any]
    items: tuple[TensorSpec, ...]
    states: tuple[StateSpec, ...]
    stages: tuple[StageSpec, ...]
    chunk: ChunkSpec | None = None
    period: int = 1
    first_readout: int = 1
    labels: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self)

    def stage(self, name: str) -> StageSpec:
        """The stage called `name`."""
        return next(s for s in self.stages if s.name == name)

    def state(self, name: str) -> StateSpec:
        """The state called `name`."""
        return next(s for s in self.states if s.name == name)

    @property
    def readout(self) -> StageSpec:
        """The stage that answers on request."""
        return next(s for s in self.stages if s.trigger.after == REQUEST)

    def value(self, name: str) -> TensorSpec:
        """The front-end item or stage output called `name`."""
        for spec in (*self.items, *(o for s in self.stages for o in s.outputs)):
            if spec.name == name:
                return spec
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dicts, strings and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> ProgramSpec:
        """Rebuilds the tables from `to_json`'s output.

        Raises:
            UserError: If a key is missing or of another kind than declared.
        """
        try:
            return cls(
                family=table["family"],
                front_end=dict(table["front_end"]),
                items=tuple(_tensor(t) for t in table["items"]),
                states=tuple(StateSpec(**{**t, "shape": tuple(t["shape"])}) for t in table["states"]),
                stages=tuple(_stage(t) for t in table["stages"]),
                chunk=_chunk(table["chunk"]) if table.get("chunk") else None,
                period=table["period"],
                first_readout=table["first_readout"],
                labels=tuple(table["labels"]),
                notes=dict(table.get("notes", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"the program table of this bundle is malformed ({error!r}); export the model again"
            ) from error


def check(spec: ProgramSpec) -> None:
    """Raises `ValueError` unless names are unique, sources exist earlier, and exactly one readout is there."""
    values = {t.name for t in spec.items}
    states = {s.name for s in spec.states}
    if len(states) != len(spec.states):
        raise ValueError("two states share a name")
    fired = {ITEMS, REQUEST}
    for stage in spec.stages:
        where = f"stage {stage.name!r}"
        if stage.name in fired:
            raise ValueError(f"{where} is declared twice")
        if stage.trigger.after not in fired:
            raise ValueError(f"{where} waits for {stage.trigger.after!r}, which is not an earlier stage")
        if not 0 <= stage.trigger.phase < stage.trigger.every:
            raise ValueError(f"{where} has phase {stage.trigger.phase} outside [0, {stage.trigger.every})")
        if missing := [n for n in stage.inputs if n not in values]:
            raise ValueError(f"{where} takes {missing}, which no front end or earlier stage makes")
        if missing := [n for n in (*stage.reads, *stage.writes, *stage.resets) if n not in states]:
            raise ValueError(f"{where} names {missing}, which are not in the state table")
        if twice := [o.name for o in stage.outputs if o.name in values]:
            raise ValueError(f"{where} makes {twice} a second time")
        values |= {o.name for o in stage.outputs}
        fired.add(stage.name)
        if stage.trigger.after == REQUEST and not set(stage.inputs) <= {item.name for item in spec.items}:
            raise ValueError(f"{where} answers on request, so it may take items and states only")
    readouts = [s.name for s in spec.stages if s.trigger.after == REQUEST]
    if len(readouts) != 1:
        raise ValueError(f"a program has one readout, this one has {readouts}")
    if spec.chunk and spec.chunk.items % spec.period:
        raise ValueError(f"the chunk of {spec.chunk.items} items is no multiple of the period {spec.period}")


def _tensor(table: Mapping[str, Any]) -> TensorSpec:
    domain = table.get("domain")
    return TensorSpec(
        name=table["name"],
        dtype=table["dtype"],
        shape=tuple(table["shape"]),
        domain=(domain[0], domain[1]) if domain else None,
        unit=table.get("unit", ""),
    )


def _stage(table: Mapping[str, Any]) -> StageSpec:
    return StageSpec(
        name=table["name"],
        trigger=Trigger(**table["trigger"]),
        inputs=tuple(table["inputs"]),
        outputs=tuple(_tensor(t) for t in table["outputs"]),
        reads=tuple(table["reads"]),
        writes=tuple(table["writes"]),
        resets=tuple(table["resets"]),
    )


def _chunk(table: Mapping[str, Any]) -> ChunkSpec:
    return ChunkSpec(
        name=table["name"],
        items=table["items"],
        inputs=tuple(table["inputs"]),
        reads=tuple(table["reads"]),
        writes=tuple(table["writes"]),
    )
