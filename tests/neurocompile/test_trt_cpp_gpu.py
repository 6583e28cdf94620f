"""The C++ plugins on a GPU, in TensorRT's order and without TensorRT, against the ops' definitions.

`python -m pytest -m gpu tests/neurocompile/test_trt_cpp_gpu.py` where a CUDA device and g++ are. Never run so far; what
stands between Python and the class is tried on the fake driver, in a process of its own.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is published for Linux only")

from benchmarks.gpu_checks import largest_error
from benchmarks.gpu_checks import plugins as cases
from neurocompile.ops.plugin_plan import planner
from neurocompile.targets.trt.plugins.compiled import compile_plan
from runtime.plugins.sizes import evaluate
from trt_cpp import toolbox as tools

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed (Debian: apt install g++)")


class Tensor(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("lengths", ctypes.c_int64 * 8),
        ("address", ctypes.c_void_p),
    )


def described(dtype: str, shape: tuple[int, ...], address: int) -> Tensor:
    lengths = (ctypes.c_int64 * 8)(*shape)
    return Tensor(tools.TYPE_NUMBERS[dtype], len(shape), lengths, address)


def shared(folder: Path, source: str, name: str) -> Path:
    made, source = folder / name, tools.HERE / source
    done = tools.call(["g++", *tools.STRICT, "-shared", *tools.HEADERS, source, "-o", made, "-ldl"])
    assert done.returncode == 0, done.stderr
    return made


def workspace(made: Path, library: Path, image, given: list[Tensor]) -> int:
    function = ctypes.CDLL(str(made)).workspace
    function.restype = ctypes.c_int64
    of = (Tensor * len(given))(*given)
    return function(str(library).encode(), image.name.encode(), len(given), of, len(image.outputs))


def run(made: Path, library: Path, image, given: list[Tensor], out: list[Tensor], memory: int, stream: int) -> int:
    sides = ((Tensor * len(side))(*side) for side in (given, out))
    ins, outs = sides
    return ctypes.CDLL(str(made)).run(
        str(library).encode(),
        image.name.encode(),
        len(given),
        ins,
        len(out),
        outs,
        ctypes.c_void_p(memory),
        ctypes.c_void_p(stream),
    )


@pytest.mark.gpu
@pytest.mark.parametrize("problem", cases.PROBLEMS, ids=lambda p: f"{p.op}-{p.operand}-{p.shapes[0]}")
def test_a_plugin_computes_its_op(problem, tmp_path):
    major, minor = torch.cuda.get_device_capability()
    plan = planner(problem.op)(problem.shapes, problem.operand, 10 * major + minor, problem.attributes)
    image, _ = compile_plan(plan, 10 * major + minor)
    library, made = tools.compile_library([image], tmp_path), shared(tmp_path, "runner.cpp", "librunner.so")
    given = cases.inputs(problem)
    shapes = [tuple(value.shape) for value in given]
    out = [
        torch.full([evaluate(s, shapes) for s in t.shape], torch.nan, dtype=getattr(torch, t.dtype), device="cuda")
        for t in image.outputs
    ]
    sources, targets = (
        [described(t.dtype, tuple(v.shape), v.data_ptr()) for t, v in zip(tensors, values, strict=True)]
        for tensors, values in ((image.inputs, given), (image.outputs, out))
    )
    memory = torch.full((max(workspace(made, library, image, sources), 1),), 0xFF, dtype=torch.uint8, device="cuda")
    stream = torch.cuda.current_stream().cuda_stream
    assert run(made, library, image, sources, targets, memory.data_ptr(), stream) == 0
    torch.cuda.synchronize()
    assert largest_error(out, [value.double() for value in cases.definition(problem, given)]) <= problem.bound


PLUMBING = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("trt_cpp_gpu", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
image, shapes = module.tools.chain(), ((2, 111, 5), (2, 3))
given = [module.described(t.dtype, s, (i + 1) << 20) for i, (t, s) in enumerate(zip(image.inputs, shapes))]
lengths = [tuple(module.evaluate(size, shapes) for size in t.shape) for t in image.outputs]
out = [module.described(t.dtype, s, (j + 1) << 24) for j, (t, s) in enumerate(zip(image.outputs, lengths))]
made, library = Path(sys.argv[2]), Path(sys.argv[3])
print(module.workspace(made, library, image, given), module.run(made, library, image, given, out, 1 << 30, 7))
"""


@pytest.mark.slow
def test_what_calls_the_class_hands_over_what_it_was_given(tmp_path):
    image, log = tools.chain(), tmp_path / "driver.log"
    library, made = tools.compile_library([image], tmp_path), shared(tmp_path, "runner.cpp", "librunner.so")
    shared(tmp_path, "fake_driver.cpp", "libcuda.so.1")
    variables = {"FAKE_CUDA_LOG": str(log), "FAKE_CUDA_CAPABILITY": "87", "LD_LIBRARY_PATH": str(tmp_path)}
    variables["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", PLUMBING, __file__, str(made), str(library)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    _, size, launches = tools.expected(image, ((2, 111, 5), (2, 3)))
    assert done.stdout.split() == [str(size), "0"]
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row for row in asked if row["call"] == "launch"] == launches
