"""The Triton kernels of all ops, compiled to machine code for chips that are not here."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is published for Linux only")

import triton

from neurocompile.ops.diagonal_scan import triton_kernel as scan_kernels
from neurocompile.ops.lif import Neuron
from neurocompile.ops.lif.triton_aot import DECAYS
from neurocompile.ops.machine_code import SHARED_KIB, Compiled, assemble

CAPABILITIES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
EMBEDDED_KIB = 48
"""Shared memory that a launch may have without asking the driver for more, as a plugin's cannot."""

NEURONS = (
    Neuron(),
    Neuron(v_reset=0.0, strict=True, surrogate="rectangle", alpha=1.0),
    Neuron(threshold=0.5, v_reset=-0.25, surrogate="sigmoid", alpha=1.5),
)


@dataclass(frozen=True)
class Needs:
    """What an op's kernels are compiled for, and may need.

    Attributes:
        width: Columns, channels of a head, or neurons.
        shared: Bytes of shared memory at most, by compute capability.
        spills: Bytes of spilled registers at most.
        widths: All that every chip is compiled for; `width` alone where empty.
        options: Further arguments of `compile_kernel` that every chip is compiled for.
        fused: Whether a product and a sum may be rounded once, together.
    """

    width: int
    shared: Callable[[int], int]
    spills: int = 0
    widths: tuple[int, ...] = ()
    options: tuple[dict[str, Any], ...] = ({},)
    fused: bool = True


NEEDS = {
    "diagonal_scan": Needs(160, lambda capability: EMBEDDED_KIB * 1024),
    "forgetting_attention": Needs(32, lambda capability: SHARED_KIB[capability] * 1024),
    # 128 channels of float32 in three TF32 products do not fit the registers of every chip.
    "gated_linear_attention": Needs(64, lambda capability: EMBEDDED_KIB * 1024, spills=640, widths=(32, 64, 128)),
    "lif": Needs(
        65536,
        lambda capability: 1024,
        options=tuple({"neuron": neuron, "decay": decay} for neuron in NEURONS for decay in DECAYS),
        # A product and a sum that are rounded once would fire other neurons than everybody else's.
        fused=False,
    ),
}


def ahead_of_time(op: str) -> ModuleType:
    return import_module(f"neurocompile.ops.{op}.triton_aot")


def kernels(op: str) -> tuple[str, ...]:
    return ahead_of_time(op).FORWARD + ahead_of_time(op).BACKWARD


def compiled(op: str, name: str, capability: int, operand: str, width: int, **options: Any) -> Compiled:
    """Machine code for that chip, within the op's limits."""
    needs, code = NEEDS[op], ahead_of_time(op).compile_kernel(name, capability, operand, width, **options)
    assert code.cubin.startswith(b"\x7fELF")
    assert f".target sm_{capability}" in code.ptx
    assert code.shared <= needs.shared(capability)
    assert needs.fused or not re.search(r"\bfma\.", code.ptx)
    return code


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    """Nothing that was compiled before answers."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize(("op", "name"), [(op, name) for op in NEEDS for name in kernels(op)])
def test_compiles_without_a_gpu(op, name):
    compiled(op, name, 80, "bf16", NEEDS[op].width)


@pytest.mark.slow
@pytest.mark.parametrize("operand", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("op", NEEDS)
def test_compiles_for_every_chip(op, capability, operand):
    needs, resources = NEEDS[op], ahead_of_time(op).resources
    if (capability, operand) == (75, "bf16"):
        with pytest.raises(ValueError, match="7.5 multiplies no bf16"):
            compiled(op, ahead_of_time(op).FORWARD[-1], capability, operand, needs.width)
        return
    for name in kernels(op):
        for width in needs.widths or (needs.width,):
            for options in needs.options:
                code = compiled(op, name, capability, operand, width, **options)
                assert resources(code, capability)["spills"] <= needs.spills


@pytest.mark.parametrize("kernel", ["scan_kernel", "gradient_kernel"])
def test_diagonal_scan_compiles_for_float64_states(kernel):
    function = getattr(scan_kernels, kernel)
    constants = {"ACC": triton.language.float64, "TILE_STEPS": 32, "TILE_COLUMNS": 32}
    types = {name: "*fp64" if name.endswith("_ptr") else "i32" for name in function.arg_names}
    assert assemble(function, types, constants, 80, 4, 3).cubin.startswith(b"\x7fELF")


@pytest.mark.parametrize("keep", [False, True])
def test_the_forward_kernel_of_lif_takes_what_a_plugin_hands_over(keep):
    """Three inputs, two integers, two results; the third result is for training alone. Triton adds two of its own."""
    ptx = ahead_of_time("lif").compile_kernel("forward_kernel", 80, "fp16", 4096, keep=keep).ptx
    kinds = re.findall(r"\.param \.(\w+)", ptx[: ptx.index(")")])
    assert kinds == ["u64"] * 3 + ["u32"] * 2 + ["u64"] * (2 + keep) + ["u64"] * 2


@pytest.mark.parametrize("op", NEEDS)
def test_importing_an_op_leaves_triton_alone(op):
    code = f"import sys, neurocompile.ops.{op} as op; assert 'triton' not in sys.modules, 'imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
