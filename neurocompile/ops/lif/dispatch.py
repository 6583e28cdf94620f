"""The function that models call: checks its inputs and hands them to `neurocompile::lif`."""

from __future__ import annotations

import torch
from torch import Tensor

from neurocompile.ops.lif import torch_op
from neurocompile.ops.lif.neuron import Neuron


def lif(
    x: Tensor,
    decay: Tensor | float,
    v: Tensor | None = None,
    neuron: Neuron | None = None,
    *,
    decay_input: bool = False,
) -> tuple[Tensor, Tensor]:
    """Leaky integrate-and-fire neurons over T steps.

        h_t = d_t v_{t-1} + x_t        s_t = 1 where h_t >= threshold, else 0
        v_t = h_t - threshold s_t (soft reset)        or        v_reset where s_t, else h_t (hard reset)

    A time constant tau is a decay d = 1 - 1 / tau; the parametric LIF (arXiv 2007.05785) learns w with
    d = 1 - sigmoid(w). A membrane that is reset to another value than 0 also leaks towards that value:
    h_t = v_reset + d (v_{t-1} - v_reset) + x_t.

    Membranes are float32, or float64 if any input is; spikes have the type of `x`. Product and sum are rounded one
    after the other everywhere, so that a spike does not depend on where it is computed. Differentiable once in `x`,
    `decay` and `v`, with the neuron's surrogate for the derivative of a spike.

    Args:
        x: (T, ..) input of each step, T at least 1.
        decay: What is kept of the membrane from step to step; a number, or a tensor that broadcasts to `x`: one for
            all, for each channel (C, 1, 1), or for each step and neuron (T, ..).
        v: (..) membrane before the first step; zero if `None`.
        neuron: Threshold, reset, comparison and surrogate; `Neuron()` if `None`.
        decay_input: Whether the input is scaled by 1 - d too, as SpikingJelly does unless told otherwise.

    Returns:
        (T, ..) spikes, 0 or 1, and (..) membrane after the last step.
    """
    neuron = neuron or Neuron()
    if not isinstance(decay, Tensor):
        decay = torch.tensor(decay, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    if v is None and x.dim():
        v = torch.zeros(x.shape[1:], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    _check(x, decay, v)
    if decay_input:
        x = x * (1 - decay)
    if neuron.v_reset:
        x = x + (1 - decay) * neuron.v_reset
    return torch_op.integrate(x, decay, v, neuron)


def _check(x: Tensor, decay: Tensor, v: Tensor | None) -> None:
    if not x.dim() or not x.shape[0] or v is None:
        raise ValueError(f"lif: x has shape {tuple(x.shape)}, expected (T, ..) with T at least 1")
    if v.shape != x.shape[1:]:
        raise ValueError(f"lif: v has shape {tuple(v.shape)}, expected {tuple(x.shape[1:])}")
    fits = decay.dim() <= x.dim() and all(
        mine in (1, its) for mine, its in zip(reversed(decay.shape), reversed(x.shape), strict=False)
    )
    if not fits:
        raise ValueError(f"lif: decay has shape {tuple(decay.shape)}, which does not broadcast to {tuple(x.shape)}")
    for name, value in (("x", x), ("decay", decay), ("v", v)):
        if not value.is_floating_point():
            raise TypeError(f"lif: {name} is {value.dtype}; pass real floating-point numbers")
