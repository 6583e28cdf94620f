"""Compiles a library of C++ plugins against the declarations here and talks to it as TensorRT would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from neurocompile.targets.trt.plugins.cpp_source import FOLDER, sources
from runtime.plugins.image import TYPES, Argument, Input, Launch, Output, PluginImage
from runtime.plugins.sizes import Dim, cdiv, evaluate, larger, smaller

HERE = Path(__file__).parent
TENSORRT_HEADERS, CUDA_HEADERS = HERE / "shim" / "tensorrt", HERE / "shim" / "cuda"
HEADERS = ("-isystem", TENSORRT_HEADERS, "-isystem", CUDA_HEADERS)
HERE_ARE = ("--tensorrt", TENSORRT_HEADERS, "--cuda", CUDA_HEADERS)
"""Options of the script that compiles."""
STRICT = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC")
VERSIONS = {"10.3": 1003, "11.0": 1100}
TYPE_NUMBERS = {"float32": 0, "float16": 1, "int32": 3, "bfloat16": 7}
ALIGNMENT = 256


def compilers() -> dict[str, list[str]]:
    """Those that are here: g++, clang++, and zig's clang."""
    found = {name: [name] for name in ("g++", "clang++") if shutil.which(name)}
    return found | ({"zig": [sys.executable, "-m", "ziglang", "c++"]} if find_spec("ziglang") else {})


def call(command: Sequence[object], **more) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=240, check=False, **more)


def compile_library(
    images: Sequence[PluginImage],
    folder: Path,
    tensorrt: str = "10.3",
    compiler: Sequence[str] = ("g++",),
    headers: Sequence[object] = HEADERS,
) -> Path:
    """Writes the sources as a bundle would and makes a library of them."""
    for name, data in sources(images).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    made = folder / f"libplugins_{VERSIONS[tensorrt]}.so"
    files = sorted((folder / FOLDER).glob("*.cpp"))
    command = [*compiler, *STRICT, "-shared", "-fvisibility=hidden", f"-DSHIM_TENSORRT={VERSIONS[tensorrt]}"]
    done = call([*command, *headers, *files, "-o", made, "-ldl"])
    assert done.returncode == 0, done.stderr
    return made


class Host:
    """A program in TensorRT's place, over a driver that writes down what it is asked."""

    def __init__(
        self,
        folder: Path,
        flags: Sequence[str] = (),
        compiler: Sequence[str] = ("g++",),
        emulator: Sequence[str] = (),
    ) -> None:
        self._program, self._folder, self._emulator = folder / "host", folder, emulator
        for source, made, more in (
            ("host.cpp", self._program, ["-ldl"]),
            ("fake_driver.cpp", folder / "libcuda.so.1", ["-shared"]),
        ):
            done = call([*compiler, *STRICT, *flags, *HEADERS, HERE / source, "-o", made, *more])
            assert done.returncode == 0, done.stderr

    def __call__(
        self, library: Path, *requests: str, capability: int = 87, fail: str = "", driver: bool = True
    ) -> tuple[list[dict], list[dict]]:
        """What was answered, and what the driver was asked."""
        log = self._folder / "driver.log"
        log.write_text("")
        variables = {"FAKE_CUDA_LOG": str(log), "FAKE_CUDA_CAPABILITY": str(capability), "FAKE_CUDA_FAIL": fail}
        path = str(self._folder) if driver else ""
        done = call(
            [*self._emulator, self._program, library],
            input="".join(f"{request}\n" for request in requests),
            env={**os.environ, **variables, "LD_LIBRARY_PATH": path},
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert done.stderr == ""
        return [[*map(json.loads, text.splitlines())] for text in (done.stdout, log.read_text())]


def request(image: PluginImage, shapes: Sequence[Sequence[int]], verb: str = "run") -> str:
    """The line that runs an image on inputs of these shapes."""
    tensors = (f"{t.dtype}:{'x'.join(map(str, shape))}" for t, shape in zip(image.inputs, shapes, strict=True))
    return " ".join((verb, image.name, *tensors))


def expected(image: PluginImage, shapes: Sequence[Sequence[int]]) -> tuple[list[dict], int, list[dict]]:
    """Outputs, workspace and launches as the image's own evaluation gives them."""
    outputs = [
        {"output": place, "type": TYPE_NUMBERS[made.dtype], "shape": [evaluate(size, shapes) for size in made.shape]}
        for place, made in enumerate(image.outputs)
    ]
    begins, end = [], 0
    for made in image.scratch:
        begins.append(-(-end // ALIGNMENT) * ALIGNMENT)
        elements = int(np.prod([evaluate(size, shapes) for size in made.shape], dtype=np.int64))
        end = begins[-1] + elements * TYPES[made.dtype]
    base = 1 << 30 if end else 0
    launches = []
    for launch in image.launches:
        grid = [evaluate(size, shapes) for size in launch.grid]
        values = [
            {
                "input": lambda a: (a.index + 1) << 20,
                "output": lambda a: (a.index + 1) << 24,
                "scratch": lambda a: base + begins[a.index],
                "scratch_in": lambda a: base + begins[a.index],
                "int32": lambda a: evaluate(a.value, shapes),
            }[argument.kind](argument)
            for argument in launch.arguments
        ]
        if 0 not in grid:
            row = {"call": "launch", "entry": launch.entry, "grid": grid, "block": [launch.threads, 1, 1]}
            launches.append({**row, "shared": launch.shared, "stream": 7, "arguments": values})
    return outputs, end, launches


def ptx(entry: str, arguments: Sequence[Argument]) -> str:
    """A kernel that does nothing, with these parameters."""
    types = ["u32" if argument.kind == "int32" else "u64 .ptr .global .align 16" for argument in arguments]
    parameters = ",\n".join(f"\t.param .{kind} {entry}_param_{i}" for i, kind in enumerate(types))
    filler = "".join(f"\t// line {i} that is no instruction\n" for i in range(400))
    head = ".version 8.0\n.target sm_87\n.address_size 64\n"
    return f"{head}.visible .entry {entry}(\n{parameters}\n)\n{{\n{filler}\tret;\n}}\n"


def launch(entry: str, arguments: Sequence[Argument], grid: tuple, threads: int = 128, shared: int = 0) -> Launch:
    return Launch(entry, ptx(entry, arguments), b"", tuple(arguments), grid, threads, shared)


def chain() -> PluginImage:
    """Two kernels over scratch memory, with every operation on sizes."""
    steps, width = Dim(0, 1), Dim(0, 2)
    blocks = cdiv(steps, 64)
    x, y, part, sums = Argument("input", 0), Argument("input", 1), Argument("scratch", 0), Argument("scratch", 1)
    integers = [Argument("int32", value=size) for size in (larger(width - 3, steps // 7), smaller(steps, 100) + 1)]
    first = launch(
        "first_kernel",
        [y, x, Argument("int32", value=steps), sums, part],
        (blocks, Dim(0, 0) * Dim(1, 0), 1),
        256,
        4096,
    )
    read = [Argument("scratch_in", 0), Argument("scratch_in", 1), x]
    second = launch(
        "second_kernel",
        [*read, *integers, Argument("output", 1), Argument("output", 0)],
        (larger(blocks - 1, 0), 2, Dim(0, 0)),
    )
    return PluginImage(
        "Chain",
        (Input("x", "float32", (None, None, None)), Input("y", "bfloat16", (None, 3))),
        (Output("z", "bfloat16", (Dim(0, 0), steps, width * 2)), Output("w", "float32", (cdiv(width, 5), Dim(1, 0)))),
        (Output("part", "float32", (blocks, Dim(0, 0), 3)), Output("sums", "int32", (Dim(0, 0) * steps,))),
        (first, second),
        capability=87,
        made_by="hand",
    )


def state() -> PluginImage:
    """One kernel that may write its state where it read it."""
    arguments = [Argument("input", 0), Argument("input", 1), Argument("output", 0), Argument("output", 1)]
    return PluginImage(
        "State",
        (Input("u", "float16", (1, None)), Input("v", "float32", (1, None))),
        (Output("s", "float16", (1, Dim(0, 1))), Output("v_next", "float32", (1, Dim(1, 1)))),
        (),
        (launch("state_kernel", arguments, (cdiv(Dim(0, 1), 32), 1, 1), 32),),
        ((1, 1),),
        capability=87,
    )


def pieces() -> PluginImage:
    """Memory that does not grow with every input: fewer pieces of a sequence where there are more sequences."""
    batch, steps, width = (Dim(0, axis) for axis in range(3))
    every, groups = cdiv(steps, 4), batch * cdiv(width, 8)
    tiles = cdiv(every, smaller(larger(12 // larger(groups, 1), 1), larger(every, 1)))
    count = cdiv(every, larger(tiles, 1))
    arguments = [Argument("input", 0), Argument("int32", value=count), Argument("scratch", 0), Argument("output", 0)]
    return PluginImage(
        "Pieces",
        (Input("x", "float32", (None, None, None)),),
        (Output("y", "float32", (batch, steps, width)),),
        (Output("part", "float32", (batch, count - 1, width)),),
        (launch("pieces_kernel", arguments, (groups * count, 1, 1)),),
        capability=87,
    )
