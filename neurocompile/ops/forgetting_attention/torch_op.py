"""`forgetting_attention` as one operator of torch, so that autograd, torch.compile and torch.export see a single node.

`neurocompile::forgetting_attention` is what a captured program holds. It stands for `forgetting_attention_sums`, which
has a fake kernel and, in `forgetting_attention_gradients`, an adjoint. Both run on CUDA tensors through Triton where
that is installed and takes the inputs, otherwise block by block, which is plain torch and runs anywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neurocompile.ops.forgetting_attention import blocked, peer
from neurocompile.ops.launches import triton_launch


def _face(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Any:
    launch = triton_launch("forgetting_attention") if q.is_cuda else None
    return launch if launch is not None and launch.supports(q, k, v, log_f) else blocked


torch.library.define("neurocompile::forgetting_attention", "(Tensor q, Tensor k, Tensor v, Tensor log_f) -> Tensor")


def attend(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Tensor:
    """(B, T, H, D) attention of inputs of any real types."""
    if q.is_cuda and torch.is_autocast_enabled("cuda") and q.dtype != torch.float64:
        # As autocast does for torch's own attention; gates and sums stay float32.
        q, k, v = (value.to(torch.get_autocast_dtype("cuda")) for value in (q, k, v))
    if peer.serves(q, k, v, log_f):
        return peer.attend(q, k, v, log_f)
    return torch.ops.neurocompile.forgetting_attention(q, k, v, log_f)


@torch.library.impl("neurocompile::forgetting_attention", "CompositeImplicitAutograd")
def _forgetting_attention(*inputs: Tensor) -> Tensor:
    """One node of the ONNX graph if one is being made, else the result."""
    # Composite, so that the exporter comes by here also for a program that torch.export captured before.
    if torch.onnx.is_in_onnx_export():
        from neurocompile.ops.forgetting_attention.onnx_function import symbolic_node

        dtype = blocked.sum_dtype(*inputs)
        return symbolic_node(*(value.to(dtype) for value in inputs))
    return forgetting_attention_sums(*inputs)[0]


@torch.library.custom_op("neurocompile::forgetting_attention_sums", mutates_args=())
def forgetting_attention_sums(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, H, D) attention and (B H, T) logarithm of every softmax's sum."""
    # Autocast would make products half precision, which are then added to float32 sums in place.
    with torch.autocast(q.device.type, enabled=False):
        return _face(q, k, v, log_f).forward(q, k, v, log_f)


@torch.library.custom_op("neurocompile::forgetting_attention_gradients", mutates_args=())
def forgetting_attention_gradients(
    q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, o: Tensor, total: Tensor, d_o: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by `q, k, v, log_f`, given both results and the gradient by the first."""
    with torch.autocast(q.device.type, enabled=False):
        return _face(q, k, v, log_f).gradients(q, k, v, log_f, o, total, d_o)


@forgetting_attention_sums.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> tuple[Tensor, Tensor]:
    dtype = blocked.sum_dtype(q, k, v, log_f)
    batch, steps, heads, _ = q.shape
    return q.new_empty(q.shape, dtype=dtype), q.new_empty((batch * heads, steps), dtype=dtype)


@forgetting_attention_gradients.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, o: Tensor, total: Tensor, d_o: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), log_f.new_empty(log_f.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, d_o: Tensor, _: Tensor | None) -> tuple[Tensor, ...]:
    return forgetting_attention_gradients(*ctx.saved_tensors, d_o)


forgetting_attention_sums.register_autograd(_backward, setup_context=_keep)
