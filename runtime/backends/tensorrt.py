"""Backend `trt`: engines built for this machine's TensorRT and GPU, one CUDA graph per stage, state that stays there.

An item is written into a ring of pinned memory and copied from there; a stage is one launch; the host waits only where
somebody asks for a value, and once per turn of the ring. The Python interface used is that of TensorRT 10.3 to 11.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from runtime import engines
from runtime.backends import tensorrt_plugins
from runtime.backends.cudart import Address, Cuda
from runtime.backends.sides import Sides
from runtime.backends.tensorrt_build import build_plan
from runtime.bundle import Bundle
from runtime.engines import Host
from runtime.errors import UserError
from runtime.plugins import library
from runtime.program import ProgramSpec, StageSpec, StateSpec, TensorSpec
from runtime.session import ScheduledSession

RING = 256
ALIGNMENT = 256


class TensorRTExecutor:
    """Runs engines; see `runtime.session.Executor`."""

    def __init__(self, spec: ProgramSpec, plans: Mapping[str, bytes], trt: Any, cuda: Cuda) -> None:
        """Deserialises the engines, which were checked before, and captures their graphs.

        Args:
            spec: The program's tables.
            plans: Stage name (and the chunk's) -> serialised engine.
            trt: The module `tensorrt`.
            cuda: The CUDA runtime.

        Raises:
            UserError: If TensorRT refuses an engine, or an engine's tensors are not those of the program.
        """
        self._spec, self._cuda = spec, cuda
        self._sides = Sides(spec)
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._logger)
        self._engines = {stage: self._engine(stage, plan, trt) for stage, plan in plans.items()}
        self._contexts = {stage: engine.create_execution_context() for stage, engine in self._engines.items()}
        self._owned: list[Address] = []
        outputs = [output for stage in spec.stages for output in stage.outputs]
        tensors: list[TensorSpec | StateSpec] = [*spec.items, *outputs, *spec.states]
        self._kinds = {tensor.name: (tuple(tensor.shape), np.dtype(tensor.dtype)) for tensor in tensors}
        self._states = {
            s.name: (self._memory(self._size(s.name)), self._memory(self._size(s.name))) for s in spec.states
        }
        self._constants: dict[tuple[str, float], Address] = {}
        self._values = {output.name: self._memory(self._size(output.name)) for output in outputs}
        self._turn = 0
        self._lay_out_items()
        self._chunk = self._chunk_memory() if spec.chunk and spec.chunk.name in plans else {}
        self._stages = [self._capture(stage) for stage in spec.stages]

    def __del__(self) -> None:
        for address in getattr(self, "_owned", ()):
            self._cuda.free(address)
        if pinned := getattr(self, "_pinned", 0):
            self._cuda.free_pinned(pinned)

    def set_items(self, values: tuple[Any, ...]) -> None:
        """See `Executor.set_items`."""
        if self._turn == RING:  # The oldest slot may still be read.
            self._cuda.synchronise()
            self._turn = 0
        slot = self._ring[self._turn]
        for cell, value in zip(slot, values, strict=True):
            cell[...] = value
        self._cuda.copy(self._block, self._pinned + self._turn * self._stride, self._stride)
        self._turn += 1

    def fire(self, stage: int) -> None:
        """See `Executor.fire`."""
        graphs, reads, flips = self._stages[stage]
        self._cuda.launch(graphs[self._sides.bits & reads])
        self._sides.bits ^= flips

    def run_chunk(self, items: Mapping[str, np.ndarray]) -> None:
        """See `Executor.run_chunk`."""
        chunk = self._spec.chunk
        assert chunk is not None
        context = self._contexts[chunk.name]
        for name in chunk.inputs:
            self._upload(self._chunk[name], np.ascontiguousarray(items[name], self._kinds[name][1]))
        for name in chunk.reads:
            self._bind(context, chunk.name, name, self._current(name))
        self._enqueue(context, chunk.name)
        for name in chunk.writes:
            self._cuda.copy(self._current(name), self._chunk[f"{name}_next"], self._size(name))

    def output(self, name: str) -> np.ndarray:
        """See `Executor.output`."""
        return self._download(name, self._items[name] if name in self._items else self._values[name])

    def get_state(self, name: str) -> np.ndarray:
        """See `Executor.get_state`."""
        return self._download(name, self._current(name))

    def set_state(self, name: str, value: np.ndarray | float) -> None:
        """See `Executor.set_state`; a plain number, which the schedule sets after firings, waits for nothing."""
        shape, dtype = self._kinds[name]
        if not isinstance(value, float | int):
            self._upload(self._current(name), np.ascontiguousarray(np.broadcast_to(value, shape), dtype))
            return
        if (name, value) not in self._constants:
            address = self._constants[name, value] = self._memory(self._size(name))
            self._upload(address, np.full(shape, value, dtype))
        self._cuda.copy(self._current(name), self._constants[name, value], self._size(name))

    def _engine(self, stage: str, plan: bytes, trt: Any) -> Any:
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise UserError(f"TensorRT {trt.__version__} refuses the engine of stage {stage!r}; build it here again")
        return engine

    def _capture(self, stage: StageSpec) -> tuple[dict[int, Address], int, int]:
        """One launchable graph per combination of sides, the bits that choose it, and those that a firing turns."""
        context, graphs = self._contexts[stage.name], {}
        for name in stage.inputs:
            self._bind(context, stage.name, name, self._items[name] if name in self._items else self._values[name])
        for output in stage.outputs:
            self._bind(context, stage.name, output.name, self._values[output.name])
        for bits, bound in self._sides.bindings(stage):
            for name, side in bound.items():
                self._bind(context, stage.name, name, self._states[name.removesuffix("_next")][side])
            # What TensorRT puts off until the first run after a change must not happen while recording.
            self._enqueue(context, stage.name)
            self._cuda.synchronise()
            self._cuda.begin_capture()
            self._enqueue(context, stage.name)
            graphs[bits] = self._cuda.end_capture()
        return graphs, *self._sides.masks(stage)

    def _bind(self, context: Any, stage: str, name: str, address: Address) -> None:
        """Tells an engine where a tensor is; a graph may lack an input that it turned out not to need."""
        engine = self._engines[stage]
        if name not in {engine.get_tensor_name(number) for number in range(engine.num_io_tensors)}:
            return
        chunk = self._spec.chunk
        wanted = self._kinds[name.removesuffix("_next")][0]
        if chunk and stage == chunk.name and name in chunk.inputs:
            wanted = (chunk.items, *wanted)
        if (shape := tuple(engine.get_tensor_shape(name))) != wanted:
            raise UserError(
                f"the engine of stage {stage!r} has {name} as {shape}, the program as {wanted}; export again"
            )
        context.set_tensor_address(name, address)

    def _enqueue(self, context: Any, stage: str) -> None:
        if not context.execute_async_v3(self._cuda.stream):
            raise UserError(f"TensorRT does not run the engine of stage {stage!r}; build it here again")

    def _lay_out_items(self) -> None:
        """All values of an item in one block, on the device and `RING` times in pinned memory."""
        offsets, size = {}, 0
        for item in self._spec.items:
            offsets[item.name] = size
            size += -(-self._size(item.name) // ALIGNMENT) * ALIGNMENT
        self._stride = max(size, 1)
        self._block = self._memory(self._stride)
        self._items = {name: self._block + offset for name, offset in offsets.items()}
        self._pinned = self._cuda.pinned_memory(RING * self._stride)
        self._ring = [
            [self._view(self._pinned + turn * self._stride + offset, name) for name, offset in offsets.items()]
            for turn in range(RING)
        ]

    def _chunk_memory(self) -> dict[str, Address]:
        chunk = self._spec.chunk
        assert chunk is not None
        places = {name: self._memory(chunk.items * self._size(name)) for name in chunk.inputs}
        places.update({f"{name}_next": self._memory(self._size(name)) for name in chunk.writes})
        for name, address in places.items():
            self._bind(self._contexts[chunk.name], chunk.name, name, address)
        return places

    def _current(self, name: str) -> Address:
        return self._states[name][self._sides.of(name)]

    def _size(self, name: str) -> int:
        shape, dtype = self._kinds[name]
        return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize

    def _memory(self, size: int) -> Address:
        self._owned.append(self._cuda.device_memory(size))
        return self._owned[-1]

    def _view(self, address: Address, name: str) -> np.ndarray:
        shape, dtype = self._kinds[name]
        raw = (ctypes.c_uint8 * self._size(name)).from_address(address)
        return np.ctypeslib.as_array(raw).view(dtype).reshape(shape)

    def _upload(self, address: Address, array: np.ndarray) -> None:
        self._cuda.copy(address, array.ctypes.data, array.nbytes)
        self._cuda.synchronise()  # The array is the caller's, and may be gone.

    def _download(self, name: str, address: Address) -> np.ndarray:
        shape, dtype = self._kinds[name]
        array = np.empty(shape, dtype)
        self._cuda.copy(array.ctypes.data, address, array.nbytes)
        self._cuda.synchronise()
        return array


def obstacle() -> str:
    """Why engines cannot run here; empty if nothing speaks against it."""
    if not find_spec("tensorrt"):
        return "TensorRT's Python module `tensorrt` is not installed"
    try:
        Cuda()
    except UserError as error:
        return str(error)
    return ""


def open_tensorrt(
    bundle: Bundle, *, tick_us: float = 1.0, use_chunk: bool = True, trt: Any = None, cuda: Cuda | None = None
) -> ScheduledSession:
    """A session of a bundle of backend `trt`; builds its engines if there are none for this machine yet.

    Args:
        bundle: The opened bundle.
        tick_us: Length of one tick of the events' times in microseconds.
        use_chunk: Whether bulk pushes may take the chunk form.
        trt: The module `tensorrt`; imported where not given.
        cuda: The CUDA runtime; opened where not given.

    Raises:
        UserError: If this machine lacks TensorRT or a GPU, or has others than the bundle or its engines are for.
    """
    trt, cuda, host = open_host(bundle, trt, cuda)
    plans = prepare(bundle, host, trt)
    if bundle.program.chunk and not use_chunk:
        plans.pop(bundle.program.chunk.name, None)
    executor = TensorRTExecutor(bundle.program, plans, trt, cuda)
    return ScheduledSession(bundle.program, executor, tick_us=tick_us, use_chunk=use_chunk)


def open_host(bundle: Bundle, trt: Any = None, cuda: Cuda | None = None) -> tuple[Any, Cuda, Host]:
    """TensorRT, CUDA and what they are, after the bundle was found to fit them.

    Raises:
        UserError: See `open_tensorrt`.
    """
    if trt is None:
        try:
            trt = import_module("tensorrt")
        except ImportError as error:
            raise UserError(
                f"{bundle.root} runs on TensorRT, whose Python module cannot be imported here ({error}); on a Jetson "
                "install python3-libnvinfer, elsewhere pip install tensorrt"
            ) from error
    cuda = cuda or Cuda()
    host = Host(trt.__version__, cuda.capability())
    engines.check_host(bundle, host)
    return trt, cuda, host


def prepare(bundle: Bundle, host: Host, trt: Any) -> dict[str, bytes]:
    """The engines for this machine: those that are kept, or new ones, which are kept then."""
    tensorrt_plugins.check(bundle, host)
    library.register(bundle, host, trt)
    folder = engines.folder_of(bundle, host)
    plans = engines.load(folder, bundle, host)
    if plans is None:
        graphs = bundle.graphs()
        tensorrt_plugins.register(bundle, host, trt)
        print(
            f"building {len(graphs)} engines for TensorRT {host.tensorrt} and sm_{host.capability}, once: {folder}",
            file=sys.stderr,
        )
        flags = (tensorrt_plugins.CREATION_FLAG,) if tensorrt_plugins.needed(bundle) else ()
        plans = {stage: build_plan(trt, stage, graph, flags=flags)[0] for stage, graph in graphs.items()}
        engines.save(folder, bundle, host, plans)
    return plans
