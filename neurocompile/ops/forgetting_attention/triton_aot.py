"""Compiles the Triton kernels of `forgetting_attention` ahead of time, for chips that need not be here.

What comes out is machine code (cubin) for one compute capability with the block sizes of `triton_blocks.py`, the same
that a launch would compile, and what it needs of the chip.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from neurocompile.ops.forgetting_attention import triton_gradient, triton_kernel
from neurocompile.ops.forgetting_attention.triton_blocks import SEARCH, plan, precision, span

FORWARD = ("size_kernel", "prefix_kernel", "forward_kernel")
BACKWARD = ("share_kernel", "query_kernel", "key_kernel", "gate_kernel")

OPERANDS = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Bytes of an element, by the type of q, k and v."""

# All other tensors are float32.
_OPERAND = ("q_ptr", "k_ptr", "v_ptr", "d_o_ptr", "d_q_ptr", "d_k_ptr", "d_v_ptr")


@dataclass(frozen=True)
class Compiled:
    """A kernel as machine code.

    Attributes:
        cubin: For `cuModuleLoadData`.
        ptx: What it was assembled from.
        shared: Bytes of shared memory that a launch has to ask for.
        warps: Warps of a program.
    """

    cubin: bytes
    ptx: str
    shared: int
    warps: int


def compile_kernel(name: str, capability: int, operand: str, width: int, steps: int = 4096) -> Compiled:
    """Compiles one kernel.

    Args:
        name: One of `FORWARD` or `BACKWARD`.
        capability: 75 for compute capability 7.5, and so on.
        operand: One of `OPERANDS`; gates and sums are float32.
        width: Channels of a head.
        steps: The longest sequence that is meant; shorter ones run too, longer ones only from 1024 on.

    Returns:
        The machine code.

    Raises:
        ValueError: For bfloat16 on a chip without it.
    """
    if operand == "bf16" and capability < 80:
        raise ValueError(f"compute capability {capability / 10} multiplies no bf16; widen the inputs and name fp32")
    chosen = plan(capability, width, OPERANDS[operand])
    blocks = chosen.key if name == "key_kernel" else chosen.query if name in BACKWARD else chosen.forward
    kernel = getattr(triton_gradient if name in BACKWARD else triton_kernel, name)
    constants: dict[str, Any] = {"WIDTH": width, "LANES": max(16, triton.next_power_of_2(width)), "SEARCH": SEARCH}
    constants |= {"QUERIES": blocks.queries, "KEYS": blocks.keys, "SPAN": span(steps, blocks.keys)}
    constants |= {"FIRST_QUERIES": chosen.query.queries, "FIRST_KEYS": chosen.query.keys}
    constants |= {"PRECISION": precision(capability, OPERANDS[operand])}
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    signature = {key: _type(key, operand) for key in kernel.arg_names} | dict.fromkeys(constants, "constexpr")
    # As torch allocates them.
    aligned = {(i,): [["tt.divisibility", 16]] for i, key in enumerate(kernel.arg_names) if key.endswith("_ptr")}
    binary = triton.compile(
        ASTSource(kernel, signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": blocks.warps, "num_stages": blocks.stages, "enable_fp_fusion": True},
    )
    return Compiled(binary.asm["cubin"], binary.asm["ptx"], binary.metadata.shared, binary.metadata.num_warps)


def _type(argument: str, operand: str) -> str:
    if argument.endswith("_ptr"):
        return "*i32" if argument == "first_ptr" else f"*{operand if argument in _OPERAND else 'fp32'}"
    return "fp32" if argument == "scale" else "i32"


def resources(compiled: Compiled, capability: int) -> dict[str, int]:
    """What the assembler says about machine code.

    Args:
        compiled: From `compile_kernel`.
        capability: As given there.

    Returns:
        `registers` of a thread and bytes it `spills` (stores and loads).
    """
    from triton.backends.nvidia.compiler import get_ptxas

    match = re.search(r"\.target (sm_\w+)", compiled.ptx)
    if match is None:
        raise ValueError(f"PTX for {capability} names no target")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(compiled.ptx)
        command = [get_ptxas(capability).path, "-v", f"--gpu-name={match[1]}", "-o", f"{source}.o", str(source)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    numbers = [re.search(pattern, said) for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores")]
    loads = re.search(r"(\d+) bytes spill loads", said)
    if not all(numbers) or loads is None:
        raise ValueError(f"the assembler's report has another form: {said[:200]!r}")
    return {"registers": int(numbers[0][1]), "spills": int(numbers[1][1]) + int(loads[1])}  # type: ignore[index]
