"""`lif` for CUDA tensors: one launch forward, one backward. Importing this file imports Triton."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from neurocompile.ops.lif.layout import flat_decay, fold_decay, sum_dtype
from neurocompile.ops.lif.neuron import Neuron
from neurocompile.ops.lif.triton_kernel import forward_kernel, gradient_kernel

BLOCK = 512
"""Neurons of a program at most; small layers get smaller blocks, to spread over the chip."""

WARPS = 4


def forward(x: Tensor, decay: Tensor, v: Tensor, neuron: Neuron, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The op, without autograd; see `blocked.forward`."""
    dtype, shape = sum_dtype(x, decay, v), x.shape
    spikes = torch.empty(shape, dtype=x.dtype, device=x.device)
    last = torch.empty(v.shape, dtype=dtype, device=x.device)
    membranes = torch.empty((shape[0] if keep else 0, *v.shape), dtype=dtype, device=x.device)
    tensors = {"x": x, "decay": flat_decay(decay, shape), "v": v}
    results = {"spikes": spikes, "last": last, "membranes": membranes if keep else None}
    _launch(forward_kernel, neuron, shape[0], v.numel(), dtype, tensors, results, KEEP=keep)
    return spikes, last, membranes


def gradients(
    membranes: Tensor, decay: Tensor, v: Tensor, d_spikes: Tensor, d_last: Tensor, neuron: Neuron, by_decay: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """The adjoint; see `blocked.gradients`. The gradient by the decay costs nothing, so it is there at all times."""
    dtype, shape = membranes.dtype, membranes.shape
    flat = flat_decay(decay, shape)
    d_x = torch.empty(shape, dtype=d_spikes.dtype, device=v.device)
    d_decay = torch.empty((flat.shape[0], v.numel()), dtype=dtype, device=v.device)
    d_v = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    tensors = {"membranes": membranes, "decay": flat, "v": v, "d_spikes": d_spikes, "d_last": d_last}
    results = {"d_x": d_x, "d_decay": d_decay, "d_v": d_v}
    _launch(gradient_kernel, neuron, shape[0], v.numel(), dtype, tensors, results)
    return d_x, fold_decay(d_decay, decay, shape), d_v


def constants(neuron: Neuron, decay_shape: tuple[int, ...], accumulator: Any, block: int) -> dict[str, Any]:
    """The constants of both kernels.

    Args:
        neuron: Threshold, reset, comparison and surrogate.
        decay_shape: (1, 1), (1, N) or (T, N).
        accumulator: Triton's type of the membrane.
        block: Neurons of a program.

    Returns:
        Values by name, those that one kernel has no use for included.
    """
    return {
        "THRESHOLD": float(neuron.threshold),
        "V_RESET": float(neuron.v_reset or 0.0),
        "HARD": neuron.v_reset is not None,
        "STRICT": neuron.strict,
        "SURROGATE": neuron.surrogate,
        "ALPHA": float(neuron.alpha),
        "DETACH": neuron.detach_reset,
        "BY_STEP": decay_shape[0] > 1,
        "BY_NEURON": decay_shape[1] > 1,
        "ACC": accumulator,
        "BLOCK": block,
    }


def block_of(neurons: int) -> int:
    """Neurons of a program: a warp's at least, and few enough for the layer to fill many programs."""
    return min(BLOCK, max(32, triton.next_power_of_2(triton.cdiv(max(neurons, 1), 256))))


def _launch(
    kernel: Any,
    neuron: Neuron,
    steps: int,
    neurons: int,
    dtype: torch.dtype,
    tensors: dict[str, Tensor],
    results: dict[str, Tensor | None],
    **options: Any,
) -> None:
    if not neurons:
        return
    block = block_of(neurons)
    given = {f"{name}_ptr": value.contiguous() for name, value in tensors.items()}
    given |= {f"{name}_ptr": value for name, value in results.items()}
    accumulator = tl.float64 if dtype is torch.float64 else tl.float32
    values = constants(neuron, tuple(tensors["decay"].shape), accumulator, block) | options
    values = {name: value for name, value in values.items() if name in kernel.arg_names}
    with torch.cuda.device_of(tensors["v"]):
        kernel[(triton.cdiv(neurons, block),)](
            **given, steps=steps, neurons=neurons, **values, num_warps=min(WARPS, block // 32), enable_fp_fusion=False
        )
