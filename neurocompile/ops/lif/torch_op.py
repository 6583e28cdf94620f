"""`lif` as one operator of torch, so that autograd, torch.compile and torch.export see a single node.

`neurocompile::lif` is what a captured program holds. It stands for `lif_states`, which has a fake kernel and, in
`lif_gradients`, an adjoint. Both run on CUDA tensors through Triton where that is installed, otherwise over blocks of
neurons, which is plain torch and runs anywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neurocompile.ops.launches import triton_launch
from neurocompile.ops.lif import blocked
from neurocompile.ops.lif.layout import sum_dtype
from neurocompile.ops.lif.neuron import Neuron

torch.library.define(
    "neurocompile::lif",
    "(Tensor x, Tensor decay, Tensor v, float threshold, float? v_reset, bool strict, str surrogate, float alpha, "
    "bool detach_reset) -> (Tensor, Tensor)",
)


def integrate(x: Tensor, decay: Tensor, v: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """(T, ..) spikes and (..) last membrane of inputs of any real types."""
    return torch.ops.neurocompile.lif(x, decay, v, *_fields(neuron))


def _fields(neuron: Neuron) -> tuple[Any, ...]:
    return neuron.threshold, neuron.v_reset, neuron.strict, neuron.surrogate, neuron.alpha, neuron.detach_reset


def _face(tensor: Tensor) -> Any:
    return (triton_launch("lif") if tensor.is_cuda else None) or blocked


@torch.library.impl("neurocompile::lif", "CompositeImplicitAutograd")
def _lif(x: Tensor, decay: Tensor, v: Tensor, *fields: Any) -> tuple[Tensor, Tensor]:
    """One node of the ONNX graph if one is being made, else the result."""
    # Composite, so that the exporter comes by here also for a program that torch.export captured before.
    if torch.onnx.is_in_onnx_export():
        from neurocompile.ops.lif.onnx_function import symbolic_node

        dtype = sum_dtype(x, decay, v)
        spikes, last = symbolic_node(x.to(dtype), decay.to(dtype), v.to(dtype), Neuron(*fields))
        return spikes.to(x.dtype), last
    keep = torch.is_grad_enabled() and any(value.requires_grad for value in (x, decay, v))
    return lif_states(x, decay, v, *fields, keep)[:2]


@torch.library.custom_op("neurocompile::lif_states", mutates_args=())
def lif_states(
    x: Tensor,
    decay: Tensor,
    v: Tensor,
    threshold: float,
    v_reset: float | None,
    strict: bool,
    surrogate: str,
    alpha: float,
    detach_reset: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(T, ..) spikes, (..) last membrane and, with `keep`, (T, ..) membranes before the resets."""
    neuron = Neuron(threshold, v_reset, strict, surrogate, alpha, detach_reset)
    return _face(x).forward(x, decay, v, neuron, keep)


@torch.library.custom_op("neurocompile::lif_gradients", mutates_args=())
def lif_gradients(
    membranes: Tensor,
    decay: Tensor,
    v: Tensor,
    d_spikes: Tensor,
    d_last: Tensor,
    threshold: float,
    v_reset: float | None,
    strict: bool,
    surrogate: str,
    alpha: float,
    detach_reset: bool,
    by_decay: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by `x, decay, v`, given the membranes before the resets and the gradients by both results."""
    neuron = Neuron(threshold, v_reset, strict, surrogate, alpha, detach_reset)
    return _face(membranes).gradients(membranes, decay, v, d_spikes, d_last, neuron, by_decay)


@lif_states.register_fake
def _(x: Tensor, decay: Tensor, v: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
    dtype, steps = sum_dtype(x, decay, v), x.shape[0] if options[-1] else 0
    return x.new_empty(x.shape), v.new_empty(v.shape, dtype=dtype), v.new_empty((steps, *v.shape), dtype=dtype)


@lif_gradients.register_fake
def _(
    membranes: Tensor, decay: Tensor, v: Tensor, d_spikes: Tensor, d_last: Tensor, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return d_spikes.new_empty(d_spikes.shape), decay.new_empty(decay.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, decay, v, *ctx.fields, keep = inputs
    if not keep:
        raise RuntimeError("lif_states was asked for gradients without keeping the membranes that they need")
    ctx.save_for_backward(output[2], decay, v)
    ctx.mark_non_differentiable(output[2])


def _backward(ctx: Any, d_spikes: Tensor, d_last: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    by_decay = ctx.needs_input_grad[1]
    return *lif_gradients(*ctx.saved_tensors, d_spikes, d_last, *ctx.fields, by_decay), *[None] * 7


lif_states.register_autograd(_backward, setup_context=_keep)
