"""`lif` as a plugin of TensorRT: the one forward launch of `triton_launch.py`, sizes left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neurocompile.ops.lif.neuron import Neuron
from neurocompile.ops.plugin_plan import KernelLaunch, NoPluginError, PluginPlan
from runtime.plugins.image import Input, Output
from runtime.plugins.sizes import Dim, Size, cdiv, evaluate


def plan(
    shapes: Sequence[tuple[int, ...]], operand: str, capability: int, attributes: Mapping[str, Any] | None = None
) -> PluginPlan:
    """The plugin for a node.

    Args:
        shapes: Of `x` (T, ..), `decay` that broadcasts to it, and `v` (..).
        operand: Not used: everything is float32, a membrane at the threshold is to fire as elsewhere.
        capability: Not used: one way of cutting serves all chips.
        attributes: The node's: `threshold`, `v_reset`, `hard`, `strict`.

    Returns:
        Inputs as above, outputs `spikes` (T, ..) and `last` (..) float32; all lengths are open but those of a decay
        that is the same for all.

    Raises:
        NoPluginError: If the decay is the same along some axes of a step and varies along others.
    """
    from neurocompile.ops.lif.triton_launch import WARPS, block_of, constants

    given = {"threshold": 1.0, "v_reset": 0.0, "hard": 0, "strict": 0} | dict(attributes or {})
    neuron = Neuron(given["threshold"], given["v_reset"] if given["hard"] else None, bool(given["strict"]))
    whole, decay = shapes[0], (1,) * (len(shapes[0]) - len(shapes[1])) + tuple(shapes[1])
    alike = all(length == 1 for length in decay)
    if not alike and decay not in (whole, (1, *whole[1:])):
        raise NoPluginError(f"its decay {shapes[1]} is broadcast to {whole} along some axes only")
    lengths = tuple(Dim(0, axis) for axis in range(len(whole)))
    neurons: Size = 1
    for length in lengths[1:]:
        neurons = neurons * length
    block = block_of(evaluate(neurons, shapes))
    flat = (1, 1) if alike else (decay[0], 2)
    values = constants(neuron, flat, "float32", block) | {"KEEP": False, "membranes_ptr": None}
    named = ("THRESHOLD", "V_RESET", "HARD", "STRICT", "BY_STEP", "BY_NEURON", "KEEP", "ACC", "BLOCK", "membranes_ptr")
    launch = KernelLaunch(
        kernel="neurocompile.ops.lif.triton_kernel:forward_kernel",
        tensors={f"{name}_ptr": name for name in ("x", "decay", "v", "spikes", "last")},
        writes=("spikes", "last"),
        integers={"steps": lengths[0], "neurons": neurons},
        constants={name: values[name] for name in named},
        grid=cdiv(neurons, block),
        warps=min(WARPS, block // 32),
        stages=1,
        fuse=False,
    )
    # A decay of one step would be taken for one of all if the number of steps were open.
    first = (1,) if len(shapes[1]) == len(whole) and shapes[1][0] == 1 else ()
    rest = len(shapes[1]) - len(first)
    inputs = (
        Input("x", "float32", (None,) * len(whole)),
        Input("decay", "float32", (1,) * len(shapes[1]) if alike else (*first, *(None,) * rest)),
        Input("v", "float32", (None,) * len(shapes[2])),
    )
    outputs = (Output("spikes", "float32", lengths), Output("last", "float32", lengths[1:]))
    return PluginPlan("LIF", inputs, outputs, (launch,))
