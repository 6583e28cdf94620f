"""The spike, a step function of the membrane, and the derivatives that training puts in place of its own.

With x the membrane less the threshold:

    atan        alpha / 2 / (1 + (pi / 2 alpha x)^2)              "Incorporating learnable membrane time constant",
                                                                  arXiv 2007.05785, and EAS-SNN, I2E
    rectangle   alpha where |x| < 1 / (2 alpha), else 0           "Spatio-temporal backpropagation", arXiv 1706.02609
    sigmoid     alpha s (1 - s), s = 1 / (1 + exp(-alpha x))      SpikingJelly's default for most of its neurons

Each integrates to 1 over x, as the derivative of the step function does.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from neurocompile.ops.lif.neuron import Neuron


def derivative(x: Tensor, surrogate: str, alpha: float) -> Tensor:
    """The surrogate derivative of a spike.

    Args:
        x: Membrane less threshold, of any shape.
        surrogate: One of `neuron.SURROGATES`.
        alpha: Its steepness.

    Returns:
        A tensor of the shape and type of `x`.
    """
    if surrogate == "atan":
        return (math.pi / 2 * alpha * x).square_().add_(1).reciprocal_().mul_(alpha / 2)
    if surrogate == "rectangle":
        return (x.abs() < 0.5 / alpha).to(x.dtype) * alpha
    s = (alpha * x).sigmoid()
    return alpha * s * (1 - s)


def over(h: Tensor, threshold: float, strict: bool) -> Tensor:
    """Which membranes fire, as booleans."""
    return h > threshold if strict else h >= threshold


def fire(h: Tensor, neuron: Neuron) -> Tensor:
    """1 where a neuron fires, 0 elsewhere, differentiable by the surrogate.

    Args:
        h: Membrane after its input and before the reset, of any shape.
        neuron: Threshold, comparison and surrogate.

    Returns:
        Spikes of the shape and type of `h`.
    """
    if torch.is_grad_enabled() and h.requires_grad and not torch.onnx.is_in_onnx_export():
        return _Fire.apply(h, neuron.threshold, neuron.strict, neuron.surrogate, neuron.alpha)
    return over(h, neuron.threshold, neuron.strict).to(h.dtype)


class _Fire(torch.autograd.Function):
    """A step function with another derivative."""

    @staticmethod
    def forward(h: Tensor, threshold: float, strict: bool, surrogate: str, alpha: float) -> Tensor:
        return over(h, threshold, strict).to(h.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.threshold, _, *ctx.surrogate = inputs[1:]

    @staticmethod
    def backward(ctx: Any, d_spikes: Tensor) -> tuple[Tensor | None, ...]:
        (h,) = ctx.saved_tensors
        return d_spikes * derivative(h - ctx.threshold, *ctx.surrogate), None, None, None, None
