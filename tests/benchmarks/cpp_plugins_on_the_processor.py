"""Runs the check of the C++ class over a driver that computes; started by `test_gpu_check_cpp_plugins.py`.

The driver is found by its name when the process starts, hence a process of its own. Prints the workspace of a made-up
plugin that was run, and the check's rows where the driver is right and where it is wrong, as JSON.
"""

from __future__ import annotations

import ctypes
import json
import sys

import scan_launch
from benchmarks import gpu_check
from benchmarks.gpu_checks import cpp_plugins, plugins
from benchmarks.gpu_checks.cpp_plugins import Described, Runner
from runtime.plugins.sizes import evaluate
from trt_cpp import toolbox

SHAPES = ((2, 111, 5), (2, 3))
LATER = float("inf")
KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p))


def run_chain(runner: Runner) -> int:
    """Runs the plugin `chain` at addresses where nothing is; the driver's log says what it launched."""
    image = toolbox.chain()
    given = [Described.of(t.dtype, SHAPES[i], (i + 1) << 20) for i, t in enumerate(image.inputs)]
    lengths = [tuple(evaluate(size, SHAPES) for size in t.shape) for t in image.outputs]
    out = [Described.of(t.dtype, lengths[j], (j + 1) << 24) for j, t in enumerate(image.outputs)]
    runner.run(image, given, out, 1 << 30, 7)
    return runner.workspace(image, given)


def rows(driver: ctypes.CDLL, swap: bool) -> list[dict]:
    """The check's, with results swapped or not."""

    @KERNEL
    def compute(entry: bytes, blocks: int, places) -> None:
        assert entry == b"scan_kernel"
        scan_launch.compute(blocks, places, swap)

    driver.fake_set_launch(compute)
    return gpu_check.run_checks("cpp_plugins", cpp_plugins, LATER)


if __name__ == "__main__":
    plugins.DEVICE = "cpu"
    plugins.PROBLEMS = [plugins.Problem("DiagonalScan", plugins.scan(2, 20, 5), "float32", 1e-5)]
    plugins._capability = lambda: 87
    runner = Runner([toolbox.chain(), plugins.image_of(0)])
    cpp_plugins._runner = lambda: runner
    size = run_chain(runner)
    driver = ctypes.CDLL("libcuda.so.1")
    answer = {"workspace": size, "right": rows(driver, False), "wrong": rows(driver, True)}
    print(json.dumps(answer), file=sys.stderr)
