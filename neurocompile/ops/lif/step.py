"""One step of `lif`: what a stream does, and what a recurrence through other layers is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from neurocompile.ops.lif.neuron import Neuron
from neurocompile.ops.lif.surrogate import fire, over


def step(x: Tensor, decay: Tensor | float, v: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor, Tensor]:
    """h = d v + x, s = 1 where h fires, v' = what the reset leaves; standard operators, differentiable.

    Args:
        x: (..) input of the step.
        decay: What is kept of the membrane; broadcasts to (..).
        v: (..) membrane before the step.
        neuron: Threshold, reset, comparison and surrogate.

    Returns:
        Spikes, membrane before the reset, membrane after it, each (..).
    """
    h = decay * v + x
    s = fire(h, neuron)
    if not (torch.is_grad_enabled() and s.requires_grad):
        fired = over(h, neuron.threshold, neuron.strict)
        return s, h, torch.where(fired, h - neuron.threshold if neuron.v_reset is None else neuron.v_reset, h)
    reset = s.detach() if neuron.detach_reset else s
    if neuron.v_reset is None:
        return s, h, h - neuron.threshold * reset
    return s, h, (1 - reset) * h + neuron.v_reset * reset
