"""`gated_linear_attention` as a plugin of TensorRT: the one forward launch of `triton_launch.py`, sizes left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neurocompile.ops.plugin_plan import KernelLaunch, NoPluginError, PluginPlan
from runtime.plugins.image import TYPES, Input, Output
from runtime.plugins.sizes import Dim, cdiv


def plan(
    shapes: Sequence[tuple[int, ...]], operand: str, capability: int, attributes: Mapping[str, Any] | None = None
) -> PluginPlan:
    """The plugin for a node.

    Args:
        shapes: Of `q` (B, T, H, D), `k` (B, T, K, D), `v` (B, T, K, E), `log_f` (B, T, H), `state` (B, H, D, E).
        operand: Type of q, k and v: `float32`, `bfloat16` or `float16`.
        capability: 87 for compute capability 8.7, and so on.
        attributes: The node's; there are none.

    Returns:
        Inputs as above, gates and state in float32, outputs `o` (B, T, H, E) and `last` (B, H, D, E) float32; D and E
        are fixed, B, T, H and K are open.

    Raises:
        NoPluginError: If heads are too wide.
    """
    from neurocompile.ops.gated_linear_attention import triton_blocks as cuts

    (_, steps_here, _, width), out = shapes[0], shapes[2][3]
    if width > cuts.WIDEST:
        raise NoPluginError(f"heads have {width} channels, and the kernel takes {cuts.WIDEST}")
    blocks = cuts.plan(capability, width, TYPES[operand])
    constants = cuts.constants(blocks, capability, TYPES[operand], width, out, steps_here)
    batch, steps, heads, key_heads = Dim(0, 0), Dim(0, 1), Dim(0, 2), Dim(1, 2)
    names = ("q", "k", "v", "log_f", "state", "o", "last")
    inputs = tuple(
        Input(name, operand, (None, None, None, lanes)) for name, lanes in zip("qkv", (width, width, out), strict=True)
    )
    inputs += (Input("log_f", "float32", (None,) * 3), Input("state", "float32", (None, None, width, out)))
    launch = KernelLaunch(
        kernel="neurocompile.ops.gated_linear_attention.triton_kernel:attention_kernel",
        tensors={f"{name}_ptr": name for name in names},
        writes=names[5:],
        integers={"steps": steps, "heads": heads, "key_heads": key_heads},
        constants=constants,
        grid=batch * heads * cdiv(out, constants["COLUMNS"]),
        warps=blocks.warps,
        stages=blocks.stages,
    )
    outputs = (
        Output("o", "float32", (batch, steps, heads, out)),
        Output("last", "float32", (batch, heads, width, out)),
    )
    return PluginPlan("GatedLinearAttention", inputs, outputs, (launch,))
