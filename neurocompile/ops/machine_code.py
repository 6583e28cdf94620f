"""Compiles Triton kernels ahead of time, for chips that need not be here: what `triton_aot.py` of every op uses."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

OPERANDS = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Bytes of an element, by the type of what is multiplied or read in bulk."""

SHARED_KIB = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 110: 227, 120: 99, 121: 99}
"""Shared memory that one block of threads may have, by compute capability (CUDA C++ Programming Guide)."""


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


def assemble(
    kernel: Any,
    types: dict[str, str],
    constants: dict[str, Any],
    capability: int,
    warps: int,
    stages: int,
    *,
    fuse: bool = True,
) -> Compiled:
    """Compiles a kernel.

    Args:
        kernel: What `triton.jit` made.
        types: Triton's name of the type of every argument that is no constant, such as `*bf16` or `i32`.
        constants: Values of the constants, those that the kernel does not name included.
        capability: 75 for compute capability 7.5, and so on.
        warps: Warps of a program.
        stages: Blocks in flight from memory.
        fuse: Whether a product and a sum may be rounded once, together.

    Returns:
        The machine code.

    Raises:
        ValueError: For bfloat16 on a chip without it.
    """
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    signature = {key: "constexpr" if key in constants else types[key] for key in kernel.arg_names}
    if capability < 80 and "*bf16" in signature.values():
        raise ValueError(f"compute capability {capability / 10} multiplies no bf16; widen the inputs and name fp32")
    # As torch allocates them.
    aligned = {(i,): [["tt.divisibility", 16]] for i, key in enumerate(kernel.arg_names) if signature[key][0] == "*"}
    binary = triton.compile(
        ASTSource(kernel, signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "num_stages": stages, "enable_fp_fusion": fuse},
    )
    return Compiled(binary.asm["cubin"], binary.asm["ptx"], binary.metadata.shared, binary.metadata.num_warps)


def precision(capability: int, size: int) -> str:
    """How operands of `size` bytes are multiplied: as Triton's `input_precision`."""
    if size < 4 or capability < 80:
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def resources(compiled: Compiled, capability: int) -> dict[str, int]:
    """What the assembler says about machine code.

    Args:
        compiled: From `assemble`.
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
