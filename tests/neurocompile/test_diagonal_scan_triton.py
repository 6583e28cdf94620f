from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is published for Linux only")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from neurocompile.ops.diagonal_scan import triton_kernel

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
def interpreted():
    """Errors of all cases, from one process that runs the kernels in Triton's interpreter."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("diagonal_scan_interpreted.py")
    done = subprocess.run(
        [sys.executable, str(script)], input=json.dumps(CASES), capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: "-".join(map(str, CASES[index].values())))
def test_states_and_all_gradients_in_the_interpreter(interpreted, index):
    errors, bound = interpreted[index], TOLERANCE[CASES[index]["dtype"]]
    assert len(errors) == 8
    assert {name: error for name, error in errors.items() if not error <= bound} == {}


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kernel", ["summary_kernel", "scan_kernel", "gradient_kernel"])
def test_compiles_to_machine_code_without_a_gpu(kernel, capability, dtype, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function = getattr(triton_kernel, kernel)
    state = "fp64" if dtype == "fp64" else "fp32"
    constants = {"BACKWARDS": True, "ACC": getattr(triton.language, f"float{state[2:]}")}
    constants |= {"TILE_STEPS": 32, "TILE_COLUMNS": 32}
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    signature = {}
    for name in function.arg_names:
        given = name.startswith(("a_", "b_", "d_", "x0_"))
        signature[name] = f"*{dtype if given else state}" if name.endswith("_ptr") else "i32"
        if name in constants:
            signature[name] = "constexpr"
    binary = triton.compile(
        ASTSource(function, signature, constexprs=constants), target=GPUTarget("cuda", capability, 32)
    )
    assert binary.asm["cubin"].startswith(b"\x7fELF")
    assert f"sm_{capability}" in binary.asm["ptx"]


def test_importing_the_op_leaves_triton_alone():
    code = "import sys, neurocompile.ops.diagonal_scan as op; assert 'triton' not in sys.modules, 'imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
