"""The check of plugins' code, on the processor: a driver that computes instead of a GPU, right and wrong."""

from __future__ import annotations

import pytest

import scan_launch

pytest.importorskip("triton", reason="Triton is published for Linux only")

from benchmarks import gpu_check
from benchmarks.driver import Driver
from benchmarks.gpu_checks import plugins
from benchmarks.gpu_checks.plugins import Problem, scan

LATER = float("inf")
SCAN = Problem("DiagonalScan", scan(2, 20, 5), "float32", 1e-5)


class Library:
    """`libcuda` of a machine whose GPU is this file: it knows one kernel, by the names of its parameters in order."""

    def __init__(self) -> None:
        self.loaded, self.launched, self.swap = [], [], False

    def cuInit(self, flags) -> int:
        return 0

    def cuGetErrorString(self, code, text) -> int:
        text._obj.value = b"invalid argument"
        return 0

    def cuModuleLoadData(self, module, code) -> int:
        self.loaded.append(code.value)
        module._obj.value = len(self.loaded)
        return 0

    def cuModuleGetFunction(self, function, module, entry) -> int:
        if entry.value != b"scan_kernel":
            return 500
        function._obj.value = module.value
        return 0

    def cuLaunchKernel(self, function, gx, gy, gz, bx, by, bz, shared, stream, places, extra) -> int:
        sizes = [each.value for each in (gx, gy, gz, bx, by, bz, shared)]
        self.launched.append((sizes, *scan_launch.compute(sizes[0], places, self.swap)))
        return 0


@pytest.fixture
def library(monkeypatch):
    library = Library()
    driver = Driver(library)
    monkeypatch.setattr(plugins, "DEVICE", "cpu")
    monkeypatch.setattr(plugins, "PROBLEMS", [SCAN])
    monkeypatch.setattr(plugins, "_capability", lambda: 87)
    monkeypatch.setattr(plugins, "_driver", lambda: driver)
    plugins.image_of.cache_clear()
    yield library
    plugins.image_of.cache_clear()


def test_code_is_launched_as_the_image_says_and_a_wrong_result_shows(library):
    rows = gpu_check.run_checks("plugins", plugins, LATER)
    assert [row["passed"] for row in rows] == [True] * 3
    assert [code[:4] for code in library.loaded] == [b".ver", b"\x7fELF"], "loaded once each"
    [launch] = plugins.image_of(0).launches
    assert library.launched == [([2, 1, 1, launch.threads, 1, 1, launch.shared], 20, 5, 1, 1)] * 3
    library.swap = True
    assert not any(row["passed"] for row in gpu_check.run_checks("plugins", plugins, LATER))
    assert list(plugins.timings()) == []


def test_what_the_driver_refuses_is_said(library):
    with pytest.raises(RuntimeError, match=r"cuModuleGetFunction: invalid argument \(500\)"):
        plugins._driver().function(b".version", "another_kernel")


def test_every_op_with_a_plugin_is_checked():
    from neurocompile.ops.plugin_plan import PLANNED

    assert {problem.op for problem in plugins.PROBLEMS} == set(PLANNED)
