"""The check of the C++ class of plugins, on the processor: over a driver that computes instead of a GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is published for Linux only")

from benchmarks import gpu_check
from benchmarks.gpu_checks import cpp_plugins, plugins
from trt_cpp import toolbox as tools

LATER = float("inf")


@pytest.fixture(scope="module")
def answer(tmp_path_factory) -> dict:
    """What the script beside this file prints, and what it asked of the driver."""
    if not shutil.which("g++"):
        pytest.skip("g++ is not installed (Debian: apt install g++)")
    folder = tmp_path_factory.mktemp("driver")
    made = folder / "libcuda.so.1"
    done = tools.call(["g++", *tools.STRICT, "-shared", *tools.HEADERS, tools.HERE / "fake_driver.cpp", "-o", made])
    assert done.returncode == 0, done.stderr
    log = folder / "driver.log"
    variables = {"FAKE_CUDA_LOG": str(log), "FAKE_CUDA_CAPABILITY": "87", "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("cpp_plugins_on_the_processor.py")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    return json.loads(done.stderr) | {"asked": asked, "printed": done.stdout}


def test_the_class_is_handed_what_it_was_given(answer):
    _, size, launches = tools.expected(tools.chain(), ((2, 111, 5), (2, 3)))
    assert answer["workspace"] == size
    assert [row for row in answer["asked"] if row["call"] == "launch"][: len(launches)] == launches


def test_a_right_result_passes_and_a_wrong_one_shows(answer):
    [right], [wrong] = answer["right"], answer["wrong"]
    assert (right["passed"], right["skipped"]) == (True, False)
    assert (wrong["passed"], wrong["skipped"]) == (False, False)
    assert wrong["error"] > wrong["bound"]
    assert "cpp_plugins: 1 of 1 comparisons passed, the closest at" in answer["printed"]
    assert "FAILED cpp_plugins: DiagonalScan float32 (2, 20, 5) by the C++ class" in answer["printed"]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("COMPILER", "no-such-compiler", "no-such-compiler is not installed (Debian: apt install g++)"),
        ("INTERFACES", Path("/nowhere"), "the declarations of TensorRT's interfaces come with a checkout only"),
    ],
)
@pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed (Debian: apt install g++)")
def test_what_the_machine_lacks_is_a_reason_and_no_failure(name, value, reason, monkeypatch, capsys):
    monkeypatch.setattr(cpp_plugins, name, value)
    rows = gpu_check.run_checks("cpp_plugins", cpp_plugins, LATER)
    assert len(rows) == len(plugins.PROBLEMS)
    assert {(row["passed"], row["skipped"], row["reason"]) for row in rows} == {(False, True, reason)}
    assert f"cpp_plugins: 0 of {len(rows)} comparisons passed, {len(rows)} skipped\n" in capsys.readouterr().out
    assert list(cpp_plugins.timings()) == []
