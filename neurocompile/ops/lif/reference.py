"""The definition of `lif`: a membrane that leaks, integrates, fires and is reset."""

from __future__ import annotations

import torch
from torch import Tensor

from neurocompile.ops.lif.neuron import Neuron
from neurocompile.ops.lif.step import step


def lif(x: Tensor, decay: Tensor, v: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """Evaluates one step after the other.

        h_t = d_t v_{t-1} + x_t        s_t = 1 where h_t >= threshold, else 0
        v_t = h_t - threshold s_t (soft reset)        or        v_reset where s_t, else h_t (hard reset)

    Args:
        x: (T, ..) input of each step.
        decay: What is kept of the membrane, of a shape that broadcasts to that of `x`.
        v: (..) membrane before the first step.
        neuron: Threshold, reset, comparison and surrogate.

    Returns:
        (T, ..) spikes and (..) membrane after the last step.
    """
    spikes, decay = [], decay.expand_as(x)
    for t in range(x.shape[0]):
        s, _, v = step(x[t], decay[t], v, neuron)
        spikes.append(s)
    return torch.stack(spikes), v
