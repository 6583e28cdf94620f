"""`forgetting_attention` as a plugin of TensorRT: the three forward launches of `triton_launch.py`, sizes left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neurocompile.ops.forgetting_attention import triton_blocks as cuts
from neurocompile.ops.forgetting_attention.triton_blocks import Blocks
from neurocompile.ops.plugin_plan import KernelLaunch, NoPluginError, PluginPlan
from runtime.plugins.image import TYPES, Input, Output
from runtime.plugins.sizes import Dim, Size, cdiv

KERNELS = "neurocompile.ops.forgetting_attention.triton_kernel"


def _blocks(capability: int, width: int, size: int) -> Blocks:
    """The blocks of a launch, smaller than training's where those need more shared memory than a plugin's 48 KiB."""
    lanes = next(lanes for lanes in (32, 64, cuts.WIDEST) if width <= lanes)
    if (size, lanes) == (4, 128) and capability >= 80:
        return Blocks(16, 16, 8, 2)
    if (size, lanes) == (2, 64) and capability >= 80:
        return Blocks(64, 32, 4, 3)
    if (size, lanes) == (2, 128) and 90 <= capability < 120:
        return Blocks(64, 16, 8, 2)
    return cuts.plan(capability, width, size).forward


def plan(
    shapes: Sequence[tuple[int, ...]], operand: str, capability: int, attributes: Mapping[str, Any] | None = None
) -> PluginPlan:
    """The plugin for a node.

    Args:
        shapes: Of `q` (B, T, H, D), `k` and `v` (B, T, K, D), `log_f` (B, T, H).
        operand: Type of q, k and v: `float32`, `bfloat16` or `float16`.
        capability: 87 for compute capability 8.7, and so on.
        attributes: The node's; there are none.

    Returns:
        Inputs as above, gates in float32, output `o` (B, T, H, D) float32; D is fixed, B, T, H and K are open.

    Raises:
        NoPluginError: If heads are too wide.
    """
    steps_here, width = shapes[0][1], shapes[0][3]
    if width > cuts.WIDEST:
        raise NoPluginError(f"heads have {width} channels, and the kernel takes {cuts.WIDEST}")
    blocks = _blocks(capability, width, TYPES[operand])
    batch, steps, heads, key_heads = Dim(0, 0), Dim(0, 1), Dim(0, 2), Dim(1, 2)
    rows, key_rows, count = batch * heads, batch * key_heads, cdiv(steps, blocks.keys)
    sizes: dict[str, Size] = {"steps": steps, "heads": heads, "key_heads": key_heads, "blocks": count}
    constants = {
        "WIDTH": width,
        "LANES": max(16, 1 << (width - 1).bit_length()),
        "SEARCH": cuts.SEARCH,
        "QUERIES": blocks.queries,
        "KEYS": blocks.keys,
        "SPAN": cuts.span(steps_here, blocks.keys),
        "PRECISION": "ieee" if TYPES[operand] < 4 or capability < 80 else "tf32x3",
        "scale": width**-0.5,
    }
    inputs = tuple(Input(name, operand, (None, None, None, width)) for name in ("q", "k", "v"))
    inputs += (Input("log_f", "float32", (None,) * 3),)
    scratch = {"block_size": (key_rows, count), "high": (rows, steps), "low": (rows, steps)}
    scratch |= dict.fromkeys(("held_high", "held_low", "size"), (rows, count)) | {"total": (rows, steps)}

    def launch(kernel: str, grid: Size, reads: str, writes: str, wanted: str, fixed: str) -> KernelLaunch:
        # Only the kernel of key lengths calls its result by another name than the plan.
        tensors = {f"{name}_ptr": name for name in (*reads.split(), *writes.split())}
        if kernel == "size_kernel":
            tensors = {"k_ptr": "k", "size_ptr": "block_size"}
        return KernelLaunch(
            kernel=f"{KERNELS}:{kernel}",
            tensors=tensors,
            writes=tuple(writes.split()),
            integers={name: sizes[name] for name in wanted.split()},
            constants={name: constants[name] for name in fixed.split()},
            grid=grid,
            warps=blocks.warps,
            stages=blocks.stages,
        )

    sums = "high low held_high held_low size"
    launches = (
        launch("size_kernel", key_rows * count, "k", "block_size", "steps key_heads blocks", "WIDTH LANES KEYS"),
        launch("prefix_kernel", rows, "log_f block_size", sums, "steps heads key_heads blocks", "KEYS SPAN"),
        launch(
            "forward_kernel",
            rows * cdiv(steps, blocks.queries),
            f"q k v {sums}",
            "o total",
            "steps heads key_heads blocks",
            "scale WIDTH LANES QUERIES KEYS SEARCH PRECISION",
        ),
    )
    outputs = (Output("o", "float32", (batch, steps, heads, width)),)
    made = tuple(Output(name, "float32", shape) for name, shape in scratch.items())
    return PluginPlan("ForgettingAttention", inputs, outputs, launches, made)
