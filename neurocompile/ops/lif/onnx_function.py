"""`lif` in ONNX: one node `neurocompile::LIF`, its body a `Scan` over the steps in standard operators."""

from __future__ import annotations

from torch import Tensor

from neurocompile.ops.function import NodeFunction
from neurocompile.ops.lif.neuron import Neuron

_TEXT = """
<threshold: float = 1.0, v_reset: float = 0.0, hard: int = 0, strict: int = 0>
(x, decay, v) => (spikes, last)
{
    steps = Shape <start = 0, end = 1> (x)
    neurons = Shape <start = 1> (x)
    dimensions = Shape (neurons)
    ones = ConstantOfShape <value = int64[1] {1}> (dimensions)
    rows = Concat <axis = 0> (steps, ones)
    decays = Expand (decay, rows)
    single_threshold = Constant <value_float: float = @threshold> ()
    level = CastLike (single_threshold, v)
    single_reset = Constant <value_float: float = @v_reset> ()
    rest = CastLike (single_reset, v)
    whether_hard = Constant <value_int: int = @hard> ()
    is_hard = Cast <to = 9> (whether_hard)
    whether_strict = Constant <value_int: int = @strict> ()
    is_strict = Cast <to = 9> (whether_strict)
    reaching_counts = Not (is_strict)
    last, spikes = Scan <
        num_scan_inputs = 2, scan_input_axes = [0, 0], scan_output_axes = [0],
        body = firing (state, current, factor) => (state_next, spike) {
            kept = Mul (factor, state)
            h = Add (kept, current)
            above = Greater (h, level)
            equal = Equal (h, level)
            reached = And (equal, reaching_counts)
            fired = Or (above, reached)
            spike = CastLike (fired, h)
            lowered = Sub (h, level)
            after = Where (is_hard, rest, lowered)
            state_next = Where (fired, after, h)
        }
    > (v, x, decays)
}
"""

FUNCTION = NodeFunction("LIF", _TEXT)
"""Inputs `x` (T, ..), `decay` that broadcasts to it and `v` (..), outputs `spikes` (T, ..) and `last` (..), all of one
floating-point type, T at least 1; sizes may be dynamic. Attributes as in `Neuron`: `hard` 0 subtracts the threshold.
"""


def symbolic_node(x: Tensor, decay: Tensor, v: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """Emits the node while a module is being exported; the inputs are of one type."""
    attributes = {
        "threshold": float(neuron.threshold),
        "v_reset": float(neuron.v_reset or 0.0),
        "hard": int(neuron.v_reset is not None),
        "strict": int(neuron.strict),
    }
    spikes, last = FUNCTION.emit((x, decay, v), ((x.dtype, x.shape), (v.dtype, v.shape)), attributes)
    return spikes, last
