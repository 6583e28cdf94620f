"""What a plugin of TensorRT launches, in terms of the Triton kernels: what `tensorrt_plugin.py` of every op states.

A plan is plain data over `runtime.plugins`: neither Triton nor TensorRT is imported. The compiler makes an image of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from runtime.plugins.image import Input, Output
from runtime.plugins.sizes import Size


class NoPluginError(Exception):
    """Why an op has no plugin for a problem, in a few words."""


@dataclass(frozen=True)
class KernelLaunch:
    """One launch of a Triton kernel.

    Attributes:
        kernel: `module:name` of what `triton.jit` made.
        tensors: The kernel's pointers, each by its parameter's name, and the tensors of the plan that they get.
        writes: Those of the tensors that the kernel writes; it reads the others.
        integers: The kernel's 32-bit integers, by parameter.
        constants: What is fixed when it is compiled: all other parameters.
        grid: Programs.
        warps: Warps of a program.
        stages: Blocks in flight from memory.
        fuse: Whether products and sums may be fused, which rounds once instead of twice.
    """

    kernel: str
    tensors: dict[str, str]
    writes: tuple[str, ...]
    integers: dict[str, Size]
    constants: dict[str, Any]
    grid: Size
    warps: int = 4
    stages: int = 3
    fuse: bool = True


@dataclass(frozen=True)
class PluginPlan:
    """One op on one kind of problem.

    Attributes:
        op: The operator's name in ONNX.
        inputs: Tensors that are given, in the node's order.
        outputs: Tensors that are made, in the node's order.
        launches: In order.
        scratch: Tensors that launches hand to later launches.
        aliased: Output -> the input whose memory it may share.
    """

    op: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    launches: tuple[KernelLaunch, ...]
    scratch: tuple[Output, ...] = field(default=())
    aliased: tuple[tuple[int, int], ...] = field(default=())


PLANNED = {
    "DiagonalScan": "diagonal_scan",
    "ForgettingAttention": "forgetting_attention",
    "GatedLinearAttention": "gated_linear_attention",
    "LIF": "lif",
}
"""Operators that have plugins -> the folder of the op."""


def planner(op: str) -> Callable[..., PluginPlan]:
    """The function `plan(shapes, operand, capability, attributes)` of an operator.

    `shapes` are those of the inputs, `operand` the type of what is multiplied, `attributes` the node's. It raises
    `NoPluginError` for what it cannot do.

    Args:
        op: A key of `PLANNED`.
    """
    function: Callable[..., PluginPlan] = import_module(f"neurocompile.ops.{PLANNED[op]}.tensorrt_plugin").plan
    return function
