"""Calibration: what the inputs of every weighted product look like while the float program runs over recordings.

The program runs as it will run, with carried state, so that what a recurrence builds up is seen: event by event, or in
bulk where rounding of weights is all that is asked for, because that wants many inputs from many recordings. Sums are
float64 and every recording begins from the initial state, so the same recordings give the same figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from neurocompile.products import Product, find_products
from neurocompile.sequences import fit_to_sensor, without_folder
from runtime.backends.ort import NEXT
from runtime.errors import UserError
from runtime.events.container import Recording
from runtime.events.shipped import samples
from runtime.front_ends import FrontEnd, Window, front_end
from runtime.program import ProgramSpec
from runtime.session import ScheduledSession
from runtime.trace import push_singly

MOST_EVENTS = 20_000
"""Events that are looked at, over all recordings."""

MOST_IN_BULK = 80_000
"""The same where chunks do most of it, at a fraction of the time."""

MOST_WINDOWS = 16
"""The same for programs whose items are windows."""

CLASSES = 10
"""Of the shipped training recordings."""

PIECE = 512
"""Events between two readouts; a chunk of any model fits into it."""

ROWS = 256
"""Inputs that are kept before they are added up."""

WIDEST = 2048
"""Inputs of a product beyond which their second moments take too much memory; they are left out then."""

ENOUGH = 4
"""Rows per channel from which on second moments are believed."""


@dataclass
class Inputs:
    """What a product's input was like.

    Attributes:
        largest: (K,) largest magnitude per channel.
        moments: (K, K) Σ x xᵀ over all rows, or `None` for convolutions and very wide inputs.
        rows: How many rows were seen.
    """

    largest: np.ndarray
    moments: np.ndarray | None
    rows: int = 0

    @property
    def maximum(self) -> float:
        """Largest magnitude of all."""
        return float(self.largest.max(initial=0.0))

    @property
    def obstacle(self) -> str:
        """Why the second moments say nothing of other recordings; empty if they do."""
        if self.moments is None:
            return f"second moments are not kept of convolutions and of more than {WIDEST} channels"
        if self.rows < ENOUGH * len(self.largest):
            return f"seen {self.rows} times, {ENOUGH * len(self.largest)} are needed for {len(self.largest)} channels"
        return ""

    @property
    def informative(self) -> bool:
        """Whether so much was seen that the second moments hold for other recordings."""
        return not self.obstacle

    def add(self, rows: np.ndarray) -> None:
        """Adds (R, K) inputs."""
        rows = rows.astype(np.float64)
        self.rows += len(rows)
        self.largest = np.maximum(self.largest, np.abs(rows).max(0, initial=0.0))
        if self.moments is not None:
            self.moments += rows.T @ rows


@dataclass(frozen=True)
class Calibration:
    """What was seen of all products.

    Attributes:
        inputs: `Product.key` -> what its input was like.
        report: Where it was seen, for the bundle's manifest.
    """

    inputs: Mapping[str, Inputs]
    report: dict[str, Any]

    def left_out(self, spec: ProgramSpec, graphs: Mapping[str, ir.Model]) -> list[str]:
        """Products of these stages that rounding learns nothing about, each with the reason."""
        products = (product for stage in spec.stages for product in find_products(stage.name, graphs[stage.name]))
        found = ((product, self.inputs[product.key].obstacle) for product in products)
        return [f"[{product.stage}] {product.node.name}: {reason}" for product, reason in found if reason]


@dataclass(frozen=True)
class Source:
    """Recordings to calibrate on.

    Attributes:
        recordings: Of the model's sensor.
        given: Whether the user gave them.
    """

    recordings: tuple[Recording, ...]
    given: bool


def shipped_source(front: FrontEnd, of_each_class: int = 1) -> Source:
    """The first shipped training recordings of every class, mapped onto the model's sensor where that differs."""
    firsts: dict[int, list[Recording]] = {}
    for label, recording in samples("train"):
        if len(found := firsts.setdefault(label, [])) < of_each_class:
            found.append(recording)
    chosen = (recording for label in sorted(firsts)[:CLASSES] for recording in firsts[label])
    return Source(tuple(without_folder(fit_to_sensor(recording, front)) for recording in chosen), given=False)


def calibrate(
    spec: ProgramSpec,
    graphs: Mapping[str, ir.Model],
    source: Source,
    announce: Callable[[str], None] = lambda text: None,
    *,
    stages_only: bool = False,
) -> Calibration:
    """Runs the float program over recordings and looks at every product's input.

    Products that only the chunk form has are seen in a second run, in bulk.

    Args:
        spec: The program's tables.
        graphs: Stage name (and the chunk's) -> float32 graph; not changed.
        source: The recordings; what exceeds `MOST_EVENTS` (`MOST_IN_BULK`, `MOST_WINDOWS`) is left out.
        announce: Is told what is done.
        stages_only: Whether the chunk is no part of what ships. Then it serves to see more: the stages' products are
            looked at in bulk, and those that the shipped recordings never reach stay unseen.

    Raises:
        UserError: If the recordings are too short for a product to be seen.
    """
    products = [product for stage, model in graphs.items() for product in find_products(stage, model)]
    if stages_only:
        keys = {product.key for product in products if spec.chunk is None or product.stage != spec.chunk.name}
        products = [product for product in products if product.key in keys]
    watched = _Watched(spec, graphs, products)
    bulk_first = stages_only and spec.chunk is not None
    taken = _cut(spec, source.recordings, MOST_IN_BULK if bulk_first else MOST_EVENTS)
    for in_bulk in (True, False) if bulk_first else (False, True):
        missing = {p.key for p in products if not watched.inputs[p.key].rows}
        if not missing or (in_bulk and spec.chunk is None):
            continue
        for recording in taken:
            session = ScheduledSession(spec, watched, tick_us=recording.tick_us, use_chunk=in_bulk)
            for begin in range(0, len(recording.events), PIECE):
                piece = recording.events[begin : begin + PIECE]
                session.push(piece) if in_bulk else push_singly(session, piece)
                session.readout()
        watched.flush()
    unseen = sorted({p.name for p in products if not watched.inputs[p.key].rows})
    if unseen and (source.given or not stages_only):
        events = sum(len(recording.events) for recording in taken)
        raise UserError(
            f"calibration over {events} events never reached the product {unseen[0]}; give longer recordings "
            "with --calibrate"
        )
    report = {
        "recordings": len(taken),
        "events": sum(len(recording.events) for recording in taken),
        "source": [recording.source for recording in taken],
        "given": source.given,
        "products": len({product.key for product in products}),
    }
    announce(
        f"calibrated on {report['events']} events of {len(taken)} {'given' if source.given else 'shipped'} recordings "
        f"({taken[0].source}{', ...' if len(taken) > 1 else ''})"
    )
    return Calibration(watched.inputs, report)


def _cut(spec: ProgramSpec, recordings: Sequence[Recording], most_events: int = MOST_EVENTS) -> list[Recording]:
    """As much of the recordings as is looked at, evenly from all and from their beginnings."""
    front = front_end(spec.front_end)
    taken, most = [], most_events // max(len(recordings), 1)
    if isinstance(front, Window):
        most = front.events_at(max(1, MOST_WINDOWS // max(len(recordings), 1)) - 1)
    for recording in recordings:
        events = recording.events[:most]
        if len(events):
            taken.append(replace(recording, events=events))
    if not taken:
        raise UserError("there is not a single event to calibrate on; give other recordings with --calibrate")
    return taken


class _Watched:
    """Runs stage graphs and keeps the inputs of products; see `runtime.session.Executor`."""

    def __init__(self, spec: ProgramSpec, graphs: Mapping[str, ir.Model], products: Sequence[Product]) -> None:
        self._spec = spec
        self.inputs: dict[str, Inputs] = {}
        self._kept: dict[str, list[np.ndarray]] = {}
        self._watch: dict[str, list[tuple[str, Product]]] = {stage: [] for stage in graphs}
        for product in products:
            channels = int(product.input.shape[product.inputs_axis])
            fits = product.is_matrix and channels <= WIDEST
            self.inputs[product.key] = Inputs(np.zeros(channels), np.zeros((channels, channels)) if fits else None)
            self._kept[product.key] = []
            self._watch[product.stage].append((str(product.input.name), product))
        self._sessions = {stage: _session(model, self._watch[stage]) for stage, model in graphs.items()}
        self._values: dict[str, np.ndarray] = {}

    def set_items(self, values: tuple[Any, ...]) -> None:
        """See `Executor.set_items`."""
        for item, value in zip(self._spec.items, values, strict=True):
            self._values[item.name] = np.asarray(value, item.dtype)

    def fire(self, stage: int) -> None:
        """See `Executor.fire`."""
        spec = self._spec.stages[stage]
        self._run(spec.name, {name: self._values[name] for name in (*spec.inputs, *spec.reads)})

    def run_chunk(self, items: Mapping[str, np.ndarray]) -> None:
        """See `Executor.run_chunk`."""
        chunk = self._spec.chunk
        assert chunk is not None
        self._run(chunk.name, {**items, **{name: self._values[name] for name in chunk.reads}})

    def output(self, name: str) -> np.ndarray:
        """See `Executor.output`."""
        return self._values[name].copy()

    def get_state(self, name: str) -> np.ndarray:
        """See `Executor.get_state`."""
        return self._values[name].copy()

    def set_state(self, name: str, value: np.ndarray | float) -> None:
        """See `Executor.set_state`."""
        spec = self._spec.state(name)
        self._values[name] = np.broadcast_to(np.asarray(value, spec.dtype), spec.shape).copy()

    def flush(self) -> None:
        """Adds up what is kept."""
        for key, rows in self._kept.items():
            if rows:
                self.inputs[key].add(np.concatenate(rows))
                rows.clear()

    def _run(self, stage: str, feeds: dict[str, np.ndarray]) -> None:
        session, names, wanted = self._sessions[stage]
        results = dict(zip(wanted, session.run(wanted, {name: feeds[name] for name in names}), strict=True))
        for name, product in self._watch[stage]:
            x = results[name] if name in results else feeds[name]
            x = x if product.inputs_axis == -1 else np.moveaxis(x, product.inputs_axis, -1)
            rows = x.reshape(-1, x.shape[-1])
            kept = self._kept[product.key]
            kept.append(rows)
            if len(kept) >= ROWS or sum(map(len, kept[-2:])) >= ROWS:
                self.inputs[product.key].add(np.concatenate(kept))
                kept.clear()
        written = set(results) - {name for name, _ in self._watch[stage]}
        self._values |= {name.removesuffix(NEXT): results[name] for name in written}


def _session(model: ir.Model, watch: list[tuple[str, Product]]) -> tuple[ort.InferenceSession, list[str], list[str]]:
    """A session of the graph that gives the watched values as well; its inputs and outputs."""
    model = model.clone()
    graph = model.graph
    outside = {value.name for value in (*graph.inputs, *graph.outputs)}
    values = {value.name: value for node in graph for value in node.outputs}
    graph.outputs.extend(values[name] for name in dict.fromkeys(name for name, _ in watch) if name not in outside)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    proto = ir.to_proto(model)
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, [value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()]
