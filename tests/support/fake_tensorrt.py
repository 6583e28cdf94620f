"""TensorRT's Python module and the CUDA runtime over host memory: what both promise and nothing more.

Work on the stream is done when somebody waits for it, not before, and memory comes filled with 0xAA: a value read too
early, or a buffer used again too soon, gives wrong numbers.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from neurocompile.upcast import upcast


class Library:
    """The CUDA runtime's functions over host memory; arguments as ctypes hands them over."""

    def __init__(self, capability: int = 87, devices: int = 1) -> None:
        self.memory: dict[int, ctypes.Array] = {}
        self.queue: list = []
        self.cleared: list = []
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
        self.cleared.append(lambda: ctypes.memset(pointer.value, value.value, size.value))
        return 0

    def cudaDeviceSynchronize(self) -> int:
        assert self.recording is None
        for work in self.cleared:
            work()
        self.cleared.clear()
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
