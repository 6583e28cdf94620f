from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is published for Linux only")

import triton

from neurocompile.ops.diagonal_scan import triton_aot, triton_kernel
from neurocompile.ops.machine_code import assemble

TOLERANCE = {"float64": 1e-13, "float32": 2e-6, "bfloat16": 2e-6, "float16": 2e-6}

# programs: 0 keeps sequences whole, 4 leaves chunks of two tiles and more, 512 makes every tile a chunk.
CASES = [
    {"batch": 2, "steps": steps, "width": width, "dtype": dtype, "programs": programs, "initial": initial}
    for steps, width, dtype, programs, initial in [
        (1, 3, "float32", 512, True),
        (1, 1, "float32", 0, False),
        (32, 2, "float32", 512, True),
        (63, 3, "float32", 0, True),
        (63, 3, "float32", 512, False),
        (100, 5, "float32", 4, True),
        (100, 1, "float32", 512, True),
        (111, 2, "float32", 0, True),
        (111, 2, "float32", 4, False),
        (111, 2, "float32", 512, True),
        (5, 35, "float32", 512, True),
        (63, 2, "bfloat16", 512, True),
        (111, 1, "float16", 4, True),
        (100, 1, "float64", 4, True),
    ]
]


@pytest.fixture(scope="module")
def interpreted(interpret):
    """Errors of all cases."""
    return interpret("diagonal_scan_interpreted.py", CASES)


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: "-".join(map(str, CASES[index].values())))
def test_states_and_all_gradients_in_the_interpreter(interpreted, index):
    errors, bound = interpreted[index], TOLERANCE[CASES[index]["dtype"]]
    assert len(errors) == 8
    assert {name: error for name, error in errors.items() if not error <= bound} == {}


KERNELS = triton_aot.FORWARD + triton_aot.BACKWARD
EMBEDDED_KIB = 48
"""Shared memory that a launch may have without asking the driver for more, as a plugin's cannot."""


def compiled_fits(name, capability, operand):
    compiled = triton_aot.compile_kernel(name, capability, operand, 160)
    assert compiled.cubin.startswith(b"\x7fELF")
    assert f".target sm_{capability}" in compiled.ptx
    assert compiled.shared <= EMBEDDED_KIB * 1024
    return compiled


@pytest.mark.parametrize("name", KERNELS)
def test_compiles_to_machine_code_without_a_gpu(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiled_fits(name, 80, "bf16")


@pytest.mark.parametrize("kernel", ["scan_kernel", "gradient_kernel"])
def test_compiles_for_float64_states(kernel, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function = getattr(triton_kernel, kernel)
    constants = {"ACC": triton.language.float64, "TILE_STEPS": 32, "TILE_COLUMNS": 32}
    types = {name: "*fp64" if name.endswith("_ptr") else "i32" for name in function.arg_names}
    assert assemble(function, types, constants, 80, 4, 3).cubin.startswith(b"\x7fELF")


@pytest.mark.slow
@pytest.mark.parametrize("operand", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("capability", [75, 80, 86, 87, 89, 90, 100, 110, 120])
def test_compiles_for_every_chip(capability, operand, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    if (capability, operand) == (75, "bf16"):
        with pytest.raises(ValueError, match="7.5 multiplies no bf16"):
            triton_aot.compile_kernel("scan_kernel", capability, operand, 160)
        return
    for name in KERNELS:
        compiled = compiled_fits(name, capability, operand)
        assert triton_aot.resources(compiled, capability)["spills"] == 0


def test_importing_the_op_leaves_triton_alone():
    code = "import sys, neurocompile.ops.diagonal_scan as op; assert 'triton' not in sys.modules, 'imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
