"""`lif` over a known number of steps as plain layers, for engines that cannot loop without the host.

One step after the other, with the membrane between them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from neurocompile.ops.emit import Emitter

FLOAT = int(ir.DataType.FLOAT)


def expand(emit: Emitter, node: ir.Node, shapes: list[tuple[int, ...]]) -> list[ir.Value]:
    """Writes the layers of one `LIF` node.

    Args:
        emit: Writes in front of the node.
        node: The node; inputs `x` (T, ..), `decay` that broadcasts to it and `v` (..), float32.
        shapes: The inputs' static shapes.

    Returns:
        `spikes` (T, ..) and `last` (..).
    """
    x, decay, v = node.inputs
    steps, by_step = shapes[0][0], len(shapes[1]) == len(shapes[0]) and shapes[1][0] > 1
    attributes = {name: node.attributes[name].value for name in node.attributes}
    level = emit.constant(np.array(attributes.get("threshold", 1.0), np.float32))
    rest = emit.constant(np.array(attributes.get("v_reset", 0.0), np.float32))
    compare = "Greater" if attributes.get("strict", 0) else "GreaterOrEqual"
    state, spikes = emit("Unsqueeze", v, emit.integers(0)), []
    for t in range(steps):
        factor = emit.slice(decay, t, t + 1, 0) if by_step else decay
        h = emit("Add", emit("Mul", factor, state), emit.slice(x, t, t + 1, 0))
        fired = emit(compare, h, level)
        spikes.append(emit("Cast", fired, to=FLOAT))
        state = emit("Where", fired, rest if attributes.get("hard", 0) else emit("Sub", h, level), h)
    whole = emit("Concat", *spikes, axis=0) if steps > 1 else spikes[0]
    return [whole, emit("Squeeze", state, emit.integers(0))]
