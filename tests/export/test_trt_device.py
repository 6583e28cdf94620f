"""The TensorRT backend against stand-ins of TensorRT and CUDA that keep what both promise and nothing more.

Work on the stand-in's stream is done when somebody waits for it, not before, and memory comes filled with 0xAA: a
value read too early, or a buffer used again too soon, gives wrong numbers. No device ever ran this.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from neurocompile.sequences import shipped_sequence
from neurocompile.targets.trt.stand_in import stand_in
from neurocompile.upcast import upcast
from runtime import engines
from runtime.backends import tensorrt as backend
from runtime.backends.cudart import Cuda
from runtime.bundle import MANIFEST, MANIFEST_HASH, open_bundle
from runtime.engines import Host
from runtime.errors import UserError


class Library:
    """The CUDA runtime's functions over host memory; arguments as ctypes hands them over."""

    def __init__(self, capability: int = 87, devices: int = 1) -> None:
        self.memory: dict[int, ctypes.Array] = {}
        self.queue: list = []
        self.recording: list | None = None
        self.graphs: list[list] = []
        self.launches, self.waits, self.most = 0, 0, 0
        self.cudaGetErrorString = lambda code: b"invalid argument"
        self._capability, self._devices = capability, devices

    def submit(self, work) -> None:
        (self.queue if self.recording is None else self.recording).append(work)

    def cudaGetDeviceCount(self, count) -> int:
        count._obj.value = self._devices
        return 0

    def cudaStreamCreateWithFlags(self, stream, flags) -> int:
        stream._obj.value = 77
        return 0

    def cudaDeviceGetAttribute(self, value, attribute, device) -> int:
        value._obj.value = {75: self._capability // 10, 76: self._capability % 10}[attribute.value]
        return 0

    def cudaMalloc(self, pointer, size) -> int:
        block = ctypes.create_string_buffer(b"\xaa" * size.value, size.value)
        self.memory[ctypes.addressof(block)] = block
        pointer._obj.value = ctypes.addressof(block)
        return 0

    def cudaHostAlloc(self, pointer, size, flags) -> int:
        return self.cudaMalloc(pointer, size)

    def cudaMemset(self, pointer, value, size) -> int:
        ctypes.memset(pointer.value, value.value, size.value)
        return 0

    def cudaFree(self, pointer) -> int:
        del self.memory[pointer.value]
        return 0

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaMemcpyAsync(self, target, source, size, direction, stream) -> int:
        assert (direction.value, stream.value) == (4, 77)
        self.submit(lambda: ctypes.memmove(target.value, source.value, size.value))
        return 0

    def cudaStreamSynchronize(self, stream) -> int:
        assert self.recording is None, "no waiting while a graph is recorded"
        self.waits += 1
        self.most = max(self.most, len(self.queue))
        work, self.queue = self.queue, []
        for piece in work:
            piece()
        return 0

    def cudaStreamBeginCapture(self, stream, mode) -> int:
        assert not self.queue
        self.recording = []
        return 0

    def cudaStreamEndCapture(self, stream, graph) -> int:
        self.graphs.append(self.recording)
        self.recording = None
        graph._obj.value = len(self.graphs)
        return 0

    def cudaGraphInstantiate(self, executable, graph, flags) -> int:
        executable._obj.value = graph.value
        return 0

    def cudaGraphDestroy(self, graph) -> int:
        return 0

    def cudaGraphLaunch(self, executable, stream) -> int:
        self.launches += 1
        self.queue += self.graphs[executable.value - 1]
        return 0


class Context:
    """Runs a graph in ONNX Runtime on whatever lies at the addresses when its turn comes."""

    def __init__(self, engine, library: Library) -> None:
        self._engine, self._library, self._places = engine, library, {}

    def set_tensor_address(self, name: str, address: int) -> None:
        assert name in self._engine.tensors
        self._places[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        places = dict(self._places)
        assert set(places) == set(self._engine.tensors)

        def work() -> None:
            arrays = {name: self._array(name, address) for name, address in places.items()}
            session = self._engine.session
            names = [output.name for output in session.get_outputs()]
            feeds = {i.name: arrays[i.name].copy() for i in session.get_inputs()}
            for name, value in zip(names, session.run(names, feeds), strict=True):
                arrays[name][...] = value

        self._library.submit(work)
        return True

    def _array(self, name: str, address: int) -> np.ndarray:
        shape, dtype = self._engine.tensors[name]
        size = int(np.prod(shape, dtype=int)) * dtype.itemsize
        assert any(
            start <= address and address + size <= start + len(block) for start, block in self._library.memory.items()
        )
        raw = (ctypes.c_uint8 * size).from_address(address)
        return np.ctypeslib.as_array(raw).view(dtype).reshape(shape)


class Engine:
    """A deserialised plan."""

    def __init__(self, plan: bytes, library: Library) -> None:
        graph = ir.to_proto(upcast(ir.from_proto(onnx.load_from_string(plan.removeprefix(b"PLAN")))))
        self.session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
        self.tensors = {
            value.name: (tuple(value.shape), np.dtype(kinds[value.type]))
            for value in (*self.session.get_inputs(), *self.session.get_outputs())
        }
        self.num_io_tensors = len(self.tensors)
        self._library = library

    def get_tensor_name(self, number: int) -> str:
        return list(self.tensors)[number]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][0]

    def create_execution_context(self) -> Context:
        return Context(self, self._library)


def module(library: Library, version: str = "10.3.0.30", broken: str = "") -> SimpleNamespace:
    """TensorRT's Python module; `broken` names the step that fails."""
    seen = SimpleNamespace(deserialised=[], built=0, settings=[])

    class ILogger:
        Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)

        def __init__(self) -> None:
            pass

    class Logger(ILogger):
        ERROR = 1

        def __init__(self, severity: int) -> None:
            pass

    class Runtime:
        def __init__(self, logger: Logger) -> None:
            pass

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            seen.deserialised.append(plan)
            return None if broken == "deserialise" else Engine(plan, library)

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            self._logger = logger

        def create_network(self, flags: int) -> SimpleNamespace:
            assert flags == (2 if version.startswith("10") else 0)
            return SimpleNamespace(graph=b"", num_layers=3)

        def create_builder_config(self) -> SimpleNamespace:
            return SimpleNamespace(clear_flag=seen.settings.append)

        def build_serialized_network(self, network: SimpleNamespace, config: SimpleNamespace) -> bytes | None:
            seen.built += 1
            if broken == "build":
                self._logger.log(1, "no implementation\nfor node")
                return None
            return b"PLAN" + network.graph

    class OnnxParser:
        num_errors = 1

        def __init__(self, network: SimpleNamespace, logger: ILogger) -> None:
            self._network = network

        def parse(self, graph: bytes) -> bool:
            self._network.graph = graph
            return broken != "parse"

        def get_error(self, number: int) -> SimpleNamespace:
            return SimpleNamespace(desc=lambda: "Invalid Node")

    flags = SimpleNamespace(STRONGLY_TYPED=1) if version.startswith("10") else SimpleNamespace()
    return SimpleNamespace(
        __version__=version,
        ILogger=ILogger,
        Logger=Logger,
        Runtime=Runtime,
        Builder=Builder,
        OnnxParser=OnnxParser,
        BuilderFlag=SimpleNamespace(TF32="TF32"),
        NetworkDefinitionCreationFlag=flags,
        seen=seen,
    )


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory) -> Path:
    """A bundle for a Jetson Orin."""
    from export.pipeline import export_model

    folder = tmp_path_factory.mktemp("trt")
    recording = shipped_sequence(600)
    return export_model(checkpoint, "trt-bf16@sm87", folder / "tiny.neuro", tensorrt="10.3", recording=recording).path


@pytest.fixture
def bundle(made, tmp_path, monkeypatch):
    """A copy of it, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return open_bundle(shutil.copytree(made, tmp_path / "tiny.neuro"))


HOST = Host("10.3.0.30", 87)


def keep(bundle) -> Path:
    """Puts engines where a first run would have left them."""
    folder = engines.folder_of(bundle, HOST)
    engines.save(folder, bundle, HOST, {stage: b"PLAN" + graph for stage, graph in bundle.graphs().items()})
    return folder


def opened(bundle, library=None, **options):
    library = library or Library()
    trt = options.pop("trt", None) or module(library)
    return backend.open_tensorrt(bundle, trt=trt, cuda=Cuda(library), **options), library, trt


def test_it_computes_what_the_graphs_say(bundle, capfd):
    """Event by event, in bulk, after a reset and from a snapshot: the same numbers as the graphs in ONNX Runtime."""
    events = shipped_sequence(1200).events
    wanted = stand_in(bundle.program, bundle.graphs(), "bf16").open(1.0)
    session, _, trt = opened(bundle)
    assert "building 6 engines for TensorRT 10.3.0.30 and sm_87" in capfd.readouterr().err
    assert trt.seen.settings == ["TF32"] * trt.seen.built
    for t, x, y, p in zip(*(getattr(events, name)[:600].tolist() for name in "txyp"), strict=True):
        session.push_event(t, x, y, p)
        wanted.push_event(t, x, y, p)
    for state in bundle.program.states:
        np.testing.assert_array_equal(session.state(state.name), wanted.state(state.name))
    snapshot = session.snapshot()
    session.push(events[600:])
    wanted.push(events[600:])
    np.testing.assert_array_equal(session.readout(), wanted.readout())
    after = session.readout()
    session.restore(snapshot)
    session.push(events[600:])
    np.testing.assert_array_equal(session.readout(), after)
    assert session.items == 1200
    assert np.any(after != 0)


def test_single_events_wait_for_nothing(bundle):
    session, library, _ = opened(bundle, use_chunk=False)
    events = shipped_sequence(200).events
    waits, launches = library.waits, library.launches
    for t, x, y, p in zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True):
        session.push_event(t, x, y, p)
    assert library.waits == waits
    assert library.launches > launches + 200
    session.push(shipped_sequence(3 * backend.RING).events[200:])
    assert library.waits == waits + 3  # Once per turn of the ring.


def test_memory_is_given_back(bundle):
    session, library, _ = opened(bundle, use_chunk=False)
    assert library.memory
    session._executor.__del__()
    session._executor._owned, session._executor._pinned = [], 0
    assert not library.memory


def test_engines_are_built_once(bundle, capfd):
    *_, trt = opened(bundle, use_chunk=False)
    assert trt.seen.built == len(bundle.manifest["graphs"])
    capfd.readouterr()
    *_, again = opened(bundle, use_chunk=False)
    assert (again.seen.built, len(again.seen.deserialised)) == (0, trt.seen.built - 1)
    assert capfd.readouterr().err == ""
    library = Library()
    *_, newer = opened(bundle, library, trt=module(library, "10.13.2.6"), use_chunk=False)
    assert newer.seen.built == trt.seen.built, "another TensorRT has another key"


def test_the_key_holds_all_that_an_engine_depends_on(bundle):
    keys = {engines.key_of(bundle, host) for host in (HOST, Host("10.3.0.31", 87), Host("10.3.0.30", 86))}
    for changed in ("graphs", "plugins"):
        other = open_bundle(bundle.root)
        if changed == "graphs":
            path = next(iter(other.manifest["graphs"].values()))
        else:
            path = "plugins/libscan.so"
            other.manifest["target"]["plugins"] = [path]
        other.manifest["files"][path] = {"sha256": "0" * 64}
        keys.add(engines.key_of(other, HOST))
    assert len(keys) == 5
    assert engines.key_of(bundle, HOST) == engines.key_of(open_bundle(bundle.root), HOST)


def refuse(message: str, act) -> None:
    with pytest.raises(UserError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("version", "capability", "message"),
    [
        ("11.4.1", 87, r"exported for TensorRT 10\.3 and this machine has 11\.4\.1; export it with --tensorrt 11"),
        ("10.2.0", 87, r"exported for TensorRT 10\.3 and this machine has 10\.2\.0"),
        ("10.3.0.30", 110, r"exported for sm_87 and the GPU here is sm_110; export it for trt-bf16@sm110"),
    ],
)
def test_another_machine_is_refused_before_anything_is_built(bundle, version, capability, message):
    library = Library(capability)
    trt = module(library, version)
    refuse(message, lambda: opened(bundle, library, trt=trt))
    assert (trt.seen.built, trt.seen.deserialised) == (0, [])


def test_a_missing_plugin_is_refused(bundle):
    bundle.manifest["target"]["plugins"] = ["plugins/libscan.so"]
    refuse("needs the plugin plugins/libscan.so, which it does not hold", lambda: opened(bundle))


def change(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("00.*.plan", b"PLAN", b"PLAM", "is not the engine that was built"),
        (
            "engines.json",
            b"10.3.0.30",
            b"10.3.0.31",
            "built by TensorRT 10.3.0.31 and this machine has 10.3.0.30",
        ),
        ("engines.json", b": 87", b": 86", "built for sm_86 and the GPU here is sm_87"),
        ("engines.json", b'"key": "', b'"key": "0', "built from other graphs"),
        ("engines.json", b'"00.', b'"../00.', "is no table of engines"),
        ("engines.json", b"{", b"", "is no table of engines"),
    ],
)
def test_engines_that_do_not_fit_never_reach_tensorrt(bundle, name, old, new, message):
    change(next(keep(bundle).glob(name)), old, new)
    library = Library()
    trt = module(library)
    refuse(message, lambda: opened(bundle, library, trt=trt))
    assert (trt.seen.built, trt.seen.deserialised) == (0, [])


def test_a_changed_graph_never_reaches_tensorrt(bundle):
    path = bundle.root / next(iter(bundle.manifest["graphs"].values()))
    change(path, b"neurocompile", b"neurocompilf")
    library = Library()
    trt = module(library)
    refuse("is not the file that was exported", lambda: opened(bundle, library, trt=trt))
    assert trt.seen.built == 0


def test_engines_beside_the_bundle_come_first(bundle):
    kept = keep(bundle)
    beside = bundle.root.with_suffix(".engines")
    shutil.copytree(kept, beside)
    shutil.rmtree(kept)
    *_, trt = opened(bundle, use_chunk=False)
    assert trt.seen.built == 0
    (beside / engines.TABLE).write_text(json.dumps({}))
    refuse("is no table of engines", lambda: opened(bundle))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("parse", "10.3.0.30 cannot read the graph of stage '[^']+': Invalid Node"),
        ("build", "cannot build the graph of stage '[^']+': no implementation for node"),
        ("deserialise", "refuses the engine of stage"),
    ],
)
def test_what_tensorrt_refuses_is_said_in_one_sentence(bundle, broken, message):
    library = Library()
    refuse(message, lambda: opened(bundle, library, trt=module(library, broken=broken)))
    if broken != "deserialise":
        assert not engines.folder_of(bundle, HOST).exists(), "nothing half-written"


def test_no_device_and_no_module(bundle, monkeypatch):
    refuse("no CUDA device", lambda: Cuda(Library(devices=0)))
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    refuse("Python module cannot be imported here", lambda: backend.open_tensorrt(bundle))


def test_an_engine_of_another_program_is_refused(bundle):
    table = json.loads((bundle.root / MANIFEST).read_text())
    table["program"]["states"][0]["shape"] = [99]
    data = json.dumps(table).encode()
    (bundle.root / MANIFEST).write_bytes(data)
    (bundle.root / MANIFEST_HASH).write_text(hashlib.sha256(data).hexdigest())
    refuse(r"has .* as \(\d+,\), the program as \(99,\)", lambda: opened(open_bundle(bundle.root)))
