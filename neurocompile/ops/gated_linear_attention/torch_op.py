"""`gated_linear_attention` as operators of torch.

`neurocompile::gated_linear_attention` is what a captured program holds. On the processor it is the blocked form, whose
matrix products autograd differentiates. On CUDA tensors, and wherever torch traces, it stands for
`gated_linear_attention_sums`, one node with a fake kernel and, in `gated_linear_attention_gradients`, an adjoint, which
run through Triton where that is installed and takes the inputs and block by block otherwise; training in half
precision may go to flash-linear-attention (`peer.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neurocompile.ops.gated_linear_attention import blocked, peer
from neurocompile.ops.launches import triton_launch

torch.library.define(
    "neurocompile::gated_linear_attention",
    "(Tensor q, Tensor k, Tensor v, Tensor log_f, Tensor state) -> (Tensor, Tensor)",
)


def attend(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, H, E) result and (B, H, D, E) last state of inputs of any real types."""
    if q.is_cuda and torch.is_autocast_enabled("cuda") and q.dtype != torch.float64:
        # As autocast does for torch's own attention; gates, state and sums stay float32.
        q, k, v = (value.to(torch.get_autocast_dtype("cuda")) for value in (q, k, v))
    if peer.serves(q, k, v, log_f, state):
        return peer.attend(q, k, v, log_f, state)
    return torch.ops.neurocompile.gated_linear_attention(q, k, v, log_f, state)


def _face(*inputs: Tensor, gradients: bool = False) -> Any:
    launch = triton_launch("gated_linear_attention") if inputs[0].is_cuda else None
    return launch if launch is not None and launch.supports(*inputs, gradients=gradients) else blocked


@torch.library.impl("neurocompile::gated_linear_attention", "CompositeImplicitAutograd")
def _gated_linear_attention(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    """One node of the ONNX graph if one is being made, else the result."""
    # Composite, so that the exporter comes by here also for a program that torch.export captured before.
    if torch.onnx.is_in_onnx_export():
        from neurocompile.ops.gated_linear_attention.onnx_function import symbolic_node

        dtype = blocked.sum_dtype(*inputs)
        return symbolic_node(*(value.to(dtype) for value in inputs))
    # What is traced becomes one node too, of any length; the blocked form's cuts would fix it.
    traced = any(type(value) not in (Tensor, torch.nn.Parameter) for value in inputs)
    if traced or inputs[0].is_cuda:
        return gated_linear_attention_sums(*inputs)
    o, last = blocked.forward(*inputs)
    return o.contiguous(), last.contiguous()  # As the fake kernel says; graphs that were traced rely on it.


@torch.library.custom_op("neurocompile::gated_linear_attention_sums", mutates_args=())
def gated_linear_attention_sums(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, H, E) result and (B, H, D, E) last state."""
    o, last = _face(q, k, v, log_f, state).forward(q, k, v, log_f, state)
    return o.contiguous(), last.contiguous()


@torch.library.custom_op("neurocompile::gated_linear_attention_gradients", mutates_args=())
def gated_linear_attention_gradients(
    q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor, last: Tensor, d_o: Tensor, d_last: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by `q, k, v, log_f, state`, given the last state and the gradients by both results."""
    face = _face(q, k, v, log_f, state, gradients=True)
    results = face.gradients(q, k, v, log_f, state, last, d_o, d_last)
    return tuple(value.contiguous() for value in results)


@gated_linear_attention_sums.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    dtype = blocked.sum_dtype(q, k, v, log_f, state)
    shape = (*q.shape[:3], v.shape[3])
    return q.new_empty(shape, dtype=dtype), state.new_empty(state.shape, dtype=dtype)


@gated_linear_attention_gradients.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor, last: Tensor, d_o: Tensor, d_last: Tensor
) -> tuple[Tensor, ...]:
    return tuple(value.new_empty(value.shape) for value in (q, k, v, log_f, state))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _backward(ctx: Any, d_o: Tensor, d_last: Tensor) -> tuple[Tensor, ...]:
    return gated_linear_attention_gradients(*ctx.saved_tensors, d_o, d_last)


gated_linear_attention_sums.register_autograd(_backward, setup_context=_keep)
