"""A toy program of three rates, written by hand: its bundle, and a plain simulation that it must equal."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.bundle import MANIFEST, MANIFEST_HASH, SCHEMA, TRACE, Bundle, open_bundle
from runtime.events import Events
from runtime.front_ends.token_dt import TokenDt
from runtime.program import REQUEST, ChunkSpec, ProgramSpec, StageSpec, StateSpec, TensorSpec, Trigger
from runtime.trace import Trace
from toy_sessions import STATES

WIDTH, HEIGHT, CLASSES, GROUP, DEEP, CHUNK, TAU = 8, 8, 3, 4, 2, 16, 5.0

ELEMENTS = {"int64": 7, "float32": 1}  # onnx.TensorProto's numbers


class Body:
    """A graph under construction: `body("Add", a, b)` appends a node and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return self.nodes[-1].output[0]


# `peak` is written by `item` and by `group`, so that it changes buffers at another pace than what either writes alone.
def item(op: Body, token: str, dt: str, v: str, sums: str, peak: str) -> dict[str, str]:
    gain = op("Exp", op("Div", op("Neg", dt), "tau"))
    v = op("Add", op("Mul", v, gain), op("Gather", "table", token))
    return {"rate": op("Mul", v, "two"), "v": v, "sums": op("Add", sums, v), "peak": op("Max", peak, v)}


def group(op: Body, rate: str, g: str, sums: str, peak: str) -> dict[str, str]:
    mean = op("Add", op("Mul", g, "half"), op("Div", sums, "four"))
    return {"g": op("Add", mean, op("Mul", rate, "tenth")), "peak": op("Mul", peak, "half")}


def deep(op: Body, deep: str, g: str) -> dict[str, str]:
    return {"deep": op("Add", op("Mul", deep, "half"), g)}


def answer(op: Body, elapsed: str, v: str, peak: str, g: str, deep: str) -> dict[str, str]:
    total = op("Add", op("Add", g, deep), op("Add", v, peak))
    return {"logits": op("Add", op("MatMul", "weight", total), op("Mul", elapsed, "slope"))}


def chunk(op: Body, token: str, dt: str, **states: str) -> dict[str, str]:
    for k in range(CHUNK):
        row = op("Constant", value_int=k)
        values = item(op, op("Gather", token, row), op("Gather", dt, row), *(states[n] for n in ("v", "sums", "peak")))
        rate = values.pop("rate")
        states |= values
        if k % GROUP == GROUP - 1:
            states |= group(op, rate, states["g"], states["sums"], states["peak"])
            states["sums"] = op("Sub", states["sums"], states["sums"])
        if k % (GROUP * DEEP) == GROUP * DEEP - 1:
            states |= deep(op, states["deep"], states["g"])
    return states


@dataclass(frozen=True)
class Toy:
    """The program, its constants and its graphs."""

    dt: str = "previous"
    front: TokenDt = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "front", TokenDt("linear", WIDTH, HEIGHT, self.dt, 2 * WIDTH * HEIGHT))

    @property
    def constants(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(5)
        scalars = {"tau": TAU, "two": 2, "four": GROUP, "half": 0.5, "tenth": 0.1}
        return {
            "table": rng.normal(size=(2 * WIDTH * HEIGHT, 4)).astype(np.float32),
            "weight": rng.normal(size=(CLASSES, 4)).astype(np.float32),
            "slope": np.linspace(0, 1e-3, CLASSES, dtype=np.float32),
            **{name: np.float32(value) for name, value in scalars.items()},
        }

    @property
    def spec(self) -> ProgramSpec:
        return ProgramSpec(
            family="toy",
            front_end=self.front.to_json(),
            items=self.front.items,
            states=tuple(StateSpec(name, "float32", (4,), -1.0 if name == "peak" else 0.0) for name in STATES),
            stages=(
                StageSpec(
                    "item",
                    Trigger(),
                    ("token", "dt"),
                    (TensorSpec("rate", "float32", (4,)),),
                    reads=("v", "sums", "peak"),
                    writes=("v", "sums", "peak"),
                ),
                StageSpec(
                    "group",
                    Trigger("item", GROUP, GROUP - 1),
                    ("rate",),
                    reads=("g", "sums", "peak"),
                    writes=("g", "peak"),
                    resets=("sums",),
                ),
                StageSpec("deep", Trigger("group", DEEP, DEEP - 1), (), reads=("deep", "g"), writes=("deep",)),
                StageSpec(
                    "answer",
                    Trigger(REQUEST),
                    ("elapsed",),
                    (TensorSpec("logits", "float32", (CLASSES,)),),
                    reads=("v", "peak", "g", "deep"),
                ),
            ),
            chunk=ChunkSpec("chunk", CHUNK, ("token", "dt"), STATES, STATES),
            period=GROUP * DEEP,
            first_readout=GROUP,
            labels=tuple("abc"),
        )

    def graphs(self) -> dict[str, bytes]:
        spec, many = self.spec, self.spec.chunk
        assert many is not None
        rows = [replace(spec.value(name), shape=(many.items,)) for name in many.inputs]
        graphs = {many.name: self._graph(chunk, rows, (), many.reads, many.writes)}
        for stage, body in zip(spec.stages, (item, group, deep, answer), strict=True):
            inputs = [spec.value(name) for name in stage.inputs]
            graphs[stage.name] = self._graph(body, inputs, stage.outputs, stage.reads, stage.writes)
        return graphs

    def _graph(self, body, inputs, outputs, reads, writes) -> bytes:
        from onnx import helper, numpy_helper

        def declare(values, suffix=""):
            return [helper.make_tensor_value_info(v.name + suffix, ELEMENTS[v.dtype], v.shape) for v in values]

        read, written = ([self.spec.state(name) for name in names] for names in (reads, writes))
        op = Body()
        names = body(op, **{value.name: value.name for value in (*inputs, *read)})
        for value, suffix in [*((v, "") for v in outputs), *((v, "_next") for v in written)]:
            op.nodes.append(helper.make_node("Identity", [names[value.name]], [value.name + suffix]))
        used = {name for node in op.nodes for name in node.input}
        constants = [numpy_helper.from_array(v, name) for name, v in self.constants.items() if name in used]
        takes, makes = declare((*inputs, *read)), declare(outputs) + declare(written, "_next")
        graph = helper.make_graph(op.nodes, body.__name__, takes, makes, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        return model.SerializeToString()

    def simulate(self, events: Events, dtype: type = np.float64) -> dict[str, np.ndarray]:
        """All states and the readout after every event, by a plain loop."""
        c = {name: value.astype(dtype) for name, value in self.constants.items()}
        v, sums, g, deep = (np.zeros(4, dtype) for _ in range(4))
        peak = np.full(4, -1, dtype)
        rows: dict[str, list[np.ndarray]] = {name: [] for name in (*STATES, "readout")}
        t = events.t
        items = 0
        elapsed = 0.0
        for k in range(len(events)):
            source = k if self.dt == "previous" else k - 1
            if source >= 0:
                before = max(k - 1, 0)
                dt = np.float32((t[k] - t[before]) / 1000)
                elapsed = float(np.float32((t[k] - t[0]) / 1000))
                token = int(events.x[source]) + WIDTH * int(events.y[source]) + WIDTH * HEIGHT * int(events.p[source])
                v = v * np.exp(-dtype(dt) / c["tau"]) + c["table"][token]
                sums = sums + v
                peak = np.maximum(peak, v)
                items += 1
                if items % GROUP == 0:
                    g = g * c["half"] + sums / c["four"] + v * 2 * c["tenth"]
                    peak = peak * c["half"]
                    sums = np.zeros(4, dtype)
                    if items % (GROUP * DEEP) == 0:
                        deep = deep * c["half"] + g
            rows["readout"].append(c["weight"] @ (g + deep + v + peak) + elapsed * c["slope"])
            for name, value in zip(STATES, (v, sums, peak, g, deep), strict=True):
                rows[name].append(value)
        return {name: np.stack(values) for name, values in rows.items()}

    def trace(self, events: Events, marks: tuple[int, ...] = (1, 2, 17, 200)) -> Trace:
        """A golden trace out of the simulation."""
        simulated = self.simulate(events)
        rows = np.array(marks) - 1
        states = {name: simulated[name][rows] for name in STATES}
        at = np.array(marks)
        return Trace(events[: marks[-1]], 1.0, at, simulated["readout"][rows], states, "made up", at)

    def write(self, root: Path, *, trace: Trace | None = None, **changes: Any) -> Path:
        """Writes the bundle; `changes` replace keys of the manifest."""
        files = {f"graphs/{name}.onnx": graph for name, graph in self.graphs().items()}
        files[TRACE] = (trace or self.trace(toy_events(200))).to_bytes()
        manifest = {
            "schema": SCHEMA,
            "name": "toy",
            "created_by": {"neurocompile": "0"},
            "model": {"family": "toy"},
            "target": {"name": "onnx-fp32", "backend": "onnx", "dtype": "fp32", "device": "native"},
            "program": asdict(self.spec),
            "graphs": {Path(name).stem: name for name in files if name.endswith(".onnx")},
            "files": {n: {"sha256": hashlib.sha256(d).hexdigest(), "bytes": len(d)} for n, d in files.items()},
            "parity": {"status": "proved", "bound": 1e-4},
            **changes,
        }
        for name, data in {**files, MANIFEST: json.dumps(manifest).encode()}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        digest = hashlib.sha256((root / MANIFEST).read_bytes()).hexdigest()
        (root / MANIFEST_HASH).write_text(f"{digest}  {MANIFEST}\n")
        return root


def toy_events(count: int, seed: int = 0, gap: float = 700) -> Events:
    """Random events on the toy's sensor, `gap` microseconds apart on average."""
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.exponential(gap, count)).astype(np.int64) + 40_000
    return Events(t, rng.integers(0, WIDTH, count), rng.integers(0, HEIGHT, count), rng.random(count) < 0.5)


@pytest.fixture(scope="session")
def make_events():
    """`toy_events`."""
    return toy_events


@pytest.fixture(scope="session", params=["previous", "next"])
def toy(request) -> Toy:
    """The toy program with either pairing of gaps."""
    return Toy(request.param)


@pytest.fixture(scope="session")
def toy_folder(toy: Toy, tmp_path_factory) -> Path:
    """The toy's bundle; tests only read it."""
    return toy.write(tmp_path_factory.mktemp("toy") / "toy.neuro")


@pytest.fixture(scope="session")
def toy_bundle(toy_folder: Path) -> Bundle:
    """The toy's bundle, opened."""
    pytest.importorskip("onnxruntime")
    return open_bundle(toy_folder)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"
