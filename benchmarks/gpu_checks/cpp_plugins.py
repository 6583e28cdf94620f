"""The C++ class of TensorRT's plugins on a GPU, called as TensorRT calls it and without TensorRT.

The class is compiled with g++ against the declarations of TensorRT's interfaces that the tests have, and asked for its
workspace, for an attachment and for its launches in TensorRT's order. This shows that the class launches the right code
with the right addresses on the right stream. It does not show what TensorRT makes of the class, nor that NVIDIA's own
headers are like the declarations.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu_checks import Check, Skipped, Timing, largest_error, plugins
from neurocompile.targets.trt.plugins.cpp_source import FOLDER, sources
from runtime.plugins.image import Input, Output, PluginImage

INTERFACES = Path(__file__).parents[2] / "tests" / "support" / "trt_cpp"
"""Where `runner.cpp` and the declarations of TensorRT's and CUDA's interfaces lie, in a checkout."""

COMPILER = "g++"
SECONDS = 60
"""How long one compilation may take."""

_TYPES = {"float32": 0, "float16": 1, "int32": 3, "bfloat16": 7}
"""`nvinfer1::DataType`."""


def checks() -> Iterator[Check]:
    """Every problem of `plugins`, by the class."""
    for number, problem in enumerate(plugins.PROBLEMS):
        name = f"{problem.op} {problem.operand} {problem.shapes[0]} by the C++ class"
        yield Check(name, problem.bound, partial(_error, number))


def timings() -> Iterator[Timing]:
    """None: the kernels are those that the ops' own timings launch."""
    return iter(())


class Described(ctypes.Structure):
    """A tensor as `runner.cpp` takes it."""

    _fields_ = (
        ("type", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("lengths", ctypes.c_int64 * 8),
        ("address", ctypes.c_void_p),
    )

    @classmethod
    def of(cls, dtype: str, shape: Sequence[int], address: int) -> Described:
        """A tensor of a type that images name, somewhere in memory."""
        return cls(_TYPES[dtype], len(shape), (ctypes.c_int64 * 8)(*shape), address)


class Runner:
    """A library of plugins and a caller in TensorRT's place, compiled.

    Args:
        images: What the library is made of, each once.

    Raises:
        RuntimeError: If something does not compile.
    """

    def __init__(self, images: Sequence[PluginImage]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="neurocompile_")
        folder = Path(self._folder.name)
        for name, data in sources(images).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        self._library = _compile(sorted((folder / FOLDER).glob("*.cpp")), folder / "libplugins.so")
        self._calls = ctypes.CDLL(str(_compile([INTERFACES / "runner.cpp"], folder / "librunner.so")))
        self._calls.workspace.restype = ctypes.c_int64

    def workspace(self, image: PluginImage, given: Sequence[Described]) -> int:
        """Bytes that the plugin wants between its launches.

        Args:
            image: One of the library's.
            given: The inputs.
        """
        size = self._calls.workspace(*self._names(image), *_array(given), len(image.outputs))
        if size < 0:
            raise RuntimeError(f"the library has no plugin {image.name}")
        return size

    def run(
        self, image: PluginImage, given: Sequence[Described], out: Sequence[Described], memory: int, stream: int
    ) -> None:
        """Puts the plugin's launches on a stream.

        Args:
            image: One of the library's.
            given: The inputs.
            out: The outputs.
            memory: Address of the workspace.
            stream: A stream's handle.

        Raises:
            RuntimeError: If the class refuses; why is on its standard error.
        """
        places = ctypes.c_void_p(memory), ctypes.c_void_p(stream)
        if code := self._calls.run(*self._names(image), *_array(given), *_array(out), *places):
            raise RuntimeError(f"plugin {image.name} answers {code}; its reason is on the standard error")

    def _names(self, image: PluginImage) -> tuple[bytes, bytes]:
        return str(self._library).encode(), image.name.encode()


def execute(runner: Runner, image: PluginImage, given: list[Tensor]) -> list[Tensor]:
    """Runs a plugin on tensors.

    Args:
        runner: Whose library has the image.
        image: Of any number of launches.
        given: The inputs, contiguous, on the device.

    Returns:
        The outputs; what no kernel wrote is NaN.
    """
    out = plugins.fresh(image.outputs, [tuple(value.shape) for value in given])
    inputs, outputs = _described(image.inputs, given), _described(image.outputs, out)
    size = max(runner.workspace(image, inputs), 1)
    memory = torch.full((size,), 0xFF, dtype=torch.uint8, device=plugins.DEVICE)
    runner.run(image, inputs, outputs, memory.data_ptr(), plugins.stream())
    plugins.wait()
    return out


def _error(number: int) -> float:
    runner, problem = _runner(), plugins.PROBLEMS[number]
    given = plugins.inputs(problem)
    made = execute(runner, plugins.image_of(number), given)
    return largest_error(made, [value.double() for value in plugins.definition(problem, given)])


@cache
def _runner() -> Runner:
    """One library for all problems; those of one op and type may share an image."""
    if not shutil.which(COMPILER):
        raise Skipped(f"{COMPILER} is not installed (Debian: apt install g++)")
    if not INTERFACES.is_dir():
        raise Skipped("the declarations of TensorRT's interfaces come with a checkout only")
    images = (plugins.image_of(number) for number in range(len(plugins.PROBLEMS)))
    return Runner(list({image.name: image for image in images}.values()))


def _compile(files: Sequence[Path], made: Path) -> Path:
    headers = [word for name in ("tensorrt", "cuda") for word in ("-isystem", str(INTERFACES / "shim" / name))]
    command = [COMPILER, "-std=c++17", "-O1", "-fPIC", "-shared", *headers, *map(str, files), "-o", str(made), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{COMPILER} refuses {files[0].name}: {(done.stderr.splitlines() or ['?'])[0]}")
    return made


def _described(tensors: Sequence[Input | Output], values: Sequence[Tensor]) -> list[Described]:
    return [Described.of(t.dtype, tuple(v.shape), v.data_ptr()) for t, v in zip(tensors, values, strict=True)]


def _array(tensors: Sequence[Described]) -> tuple[int, ctypes.Array]:
    return len(tensors), (Described * len(tensors))(*tensors)
