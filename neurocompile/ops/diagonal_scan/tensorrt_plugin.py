"""`diagonal_scan` as a plugin of TensorRT: the launches of `triton_launch.py` with sizes left open.

Where sequences times columns alone would leave a chip idle, a sequence is cut into chunks, and three launches follow
one another; otherwise one does it all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neurocompile.ops.plugin_plan import KernelLaunch, PluginPlan
from runtime.plugins.image import Input, Output
from runtime.plugins.sizes import Dim, cdiv, evaluate, larger, smaller

KERNELS = "neurocompile.ops.diagonal_scan.triton_kernel"
SEQUENCES = ("a_re", "a_im", "b_re", "b_im")
STATES = ("x0_re", "x0_im")


def plan(
    shapes: Sequence[tuple[int, ...]], operand: str, capability: int, attributes: Mapping[str, Any] | None = None
) -> PluginPlan:
    """The plugin for a node.

    Args:
        shapes: Of `a_re, a_im, b_re, b_im` (B, T, P) and `x0_re, x0_im` (B, P).
        operand: Not used: everything is float32, states need it.
        capability: Not used: one way of cutting serves all chips.
        attributes: The node's; there are none.

    Returns:
        Inputs as above, outputs `x_re, x_im` (B, T, P) float32; B, T and P are open as long as the number of launches
        stays what it is for these shapes.
    """
    from neurocompile.ops.diagonal_scan.triton_launch import PROGRAMS, TILE_COLUMNS, TILE_STEPS

    batch, steps, width = (Dim(2, axis) for axis in range(3))
    wanted = 1 << max(shapes[2][2] - 1, 0).bit_length()
    columns = min(TILE_COLUMNS, wanted)
    groups = batch * cdiv(width, columns)
    every = cdiv(steps, TILE_STEPS)
    tiles = cdiv(every, smaller(larger(PROGRAMS // larger(groups, 1), 1), larger(every, 1)))
    chunks = cdiv(every, larger(tiles, 1))
    cut = evaluate(chunks, shapes) > 1

    constants = {"ACC": "float32", "TILE_STEPS": TILE_STEPS, "TILE_COLUMNS": columns}
    inputs = tuple(Input(name, "float32", (None,) * 3) for name in SEQUENCES)
    inputs += tuple(Input(name, "float32", (None,) * 2) for name in STATES)
    outputs = tuple(Output(name, "float32", (batch, steps, width)) for name in ("x_re", "x_im"))
    given = {f"{name}_ptr": name for name in (*SEQUENCES, *STATES)}
    last = KernelLaunch(
        kernel=f"{KERNELS}:scan_kernel",
        tensors=given | {"x_re_ptr": "x_re", "x_im_ptr": "x_im"},
        writes=("x_re", "x_im"),
        integers={"steps": steps, "width": width, "chunks": chunks, "tiles": tiles},
        constants=constants,
        grid=groups * chunks,
    )
    if not cut:
        # There is one chunk, and what enters it is x0; the other pointers are not read.
        only = KernelLaunch(**{**last.__dict__, "tensors": last.tensors | _entering("x0")})
        return PluginPlan("DiagonalScan", inputs, outputs, (only,))

    between = (batch, chunks - 1, width)
    names = ("decay_re", "decay_im", "end_re", "end_im", "enter_re", "enter_im")
    summary = KernelLaunch(
        kernel=f"{KERNELS}:summary_kernel",
        tensors={f"{name}_ptr": name for name in (*SEQUENCES, *names[:4])},
        writes=names[:4],
        integers={"steps": steps, "width": width, "chunks": chunks, "tiles": tiles},
        constants=constants | {"BACKWARDS": False},
        grid=groups * (chunks - 1),
    )
    renamed = {"a_re": "decay_re", "a_im": "decay_im", "b_re": "end_re", "b_im": "end_im"}
    whole = {f"{parameter}_ptr": tensor for parameter, tensor in renamed.items()}
    over = KernelLaunch(
        kernel=f"{KERNELS}:scan_kernel",
        tensors=whole
        | {"x0_re_ptr": "x0_re", "x0_im_ptr": "x0_im", "x_re_ptr": "enter_re", "x_im_ptr": "enter_im"}
        | _entering("x0"),
        writes=names[4:],
        integers={"steps": chunks - 1, "width": width, "chunks": 1, "tiles": cdiv(chunks - 1, TILE_STEPS)},
        constants=constants,
        grid=groups * smaller(chunks - 1, 1),
    )
    last = KernelLaunch(**{**last.__dict__, "tensors": last.tensors | _entering("enter")})
    scratch = tuple(Output(name, "float32", between) for name in names)
    return PluginPlan("DiagonalScan", inputs, outputs, (summary, over, last), scratch)


def _entering(state: str) -> dict[str, str]:
    return {f"enter_{part}_ptr": f"{state}_{part}" for part in ("re", "im")}
