"""`forgetting_attention` on a CUDA device: Triton kernels against the float64 reference, and speed against peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, scaled_dot_product_attention

from benchmarks.gpu_checks import Check, Timing, largest_error, poisoned
from neurocompile.ops.forgetting_attention import blocked, peer
from neurocompile.ops.forgetting_attention.reference import forgetting_attention as reference

DEVICE = "cuda"

# (B, T, H, K, D): odd lengths, all groupings of heads, padded and full widths, one block and many.
CHECKED = [
    (2, 1, 2, 1, 32), (2, 63, 1, 1, 16), (1, 100, 6, 3, 32), (2, 111, 4, 4, 64), (1, 300, 4, 2, 128),
    (1, 1000, 3, 1, 24), (2, 1024, 2, 1, 32), (1, 4097, 2, 1, 32),
]  # fmt: skip
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Half precision rounds the softmax's weights to 8 or 11 bits where they meet values, as flash attention does.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}

# Memory of about one step, of e^6 steps, and gates that shut.
GATES = (0.0, 6.0, "extreme")

# Both directions of one window of dvs_gesture; a training batch of it; one of dvs_lip.
TIMED = [(2, 4096, 2, 1, 32), (128, 4096, 2, 1, 32), (128, 1024, 6, 3, 32)]
LARGEST_MATRIX = 4e9
"""Bytes of a (B, H, T, T) matrix beyond which contenders that make one are left out."""

Op = Callable[..., Tensor]


def ours(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Tensor:
    """The op by our own kernels, also where training would use a peer's."""
    return torch.ops.neurocompile.forgetting_attention(q, k, v, log_f)


def inputs(shape: tuple[int, ...], dtype: torch.dtype, gate: float | str) -> list[Tensor]:
    """Unit-size queries, keys and values, and gates.

    Args:
        shape: (B, T, H, K, D).
        dtype: Type of queries, keys and values; gates are float32.
        gate: Memory lengths vary around e^gate steps; `"extreme"`: open, nearly open and shut ones.

    Returns:
        The arguments of the op, on `DEVICE`.
    """
    batch, steps, heads, keys, width = shape
    draw = torch.Generator(DEVICE).manual_seed(sum(shape))

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=draw, device=DEVICE)

    q = normal(batch, steps, heads, width)
    k, v = normal(batch, steps, keys, width), normal(batch, steps, keys, width)
    if isinstance(gate, str):
        log_f = torch.zeros(batch, steps, heads, device=DEVICE)
        log_f[:, ::9], log_f[:, 1::9], log_f[:, 2::9], log_f[:, 50::100] = -300.0, -1e-6, -2.0, -1e5
    else:
        log_f = logsigmoid(gate + 1.5 * normal(batch, steps, heads))
    return [q.to(dtype), k.to(dtype), v.to(dtype), log_f]


def checks() -> Iterator[Check]:
    """Result and all gradients, by type, shape and gates; and that two runs give the same bits."""
    for dtype in DTYPES:
        for shape in CHECKED:
            for gate in GATES:
                name = f"{str(dtype)[6:]} B,T,H,K,D={shape} gates {gate}"
                yield Check(name, BOUNDS[dtype], partial(_error, shape, dtype, gate))
        yield Check(f"{str(dtype)[6:]} the same bits in every run", 1e-30, partial(_change, CHECKED[-2], dtype))


def _error(shape: tuple[int, ...], dtype: torch.dtype, gate: float | str) -> float:
    given, d_o = inputs(shape, dtype, gate), _weights(shape, dtype)
    with poisoned():
        actual = _with_gradients(ours, given, d_o)
    return largest_error(actual, _with_gradients(reference, [value.double() for value in given], d_o))


def _change(shape: tuple[int, ...], dtype: torch.dtype) -> float:
    given, d_o = inputs(shape, dtype, 2.0), _weights(shape, dtype)
    once, again = (_with_gradients(ours, given, d_o) for _ in range(2))
    return largest_error(once, [value.double() for value in again])


def _weights(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Gradient by the result, in the type that a network of `dtype` hands over."""
    batch, steps, heads, _, width = shape
    draw = torch.Generator(DEVICE).manual_seed(1)
    return torch.randn(batch, steps, heads, width, generator=draw, device=DEVICE).to(dtype)


def _with_gradients(op: Op, given: list[Tensor], d_o: Tensor) -> list[Tensor]:
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in given]
        result = op(*leaves)
        return [result, *torch.autograd.grad(result, leaves, d_o.to(result))]


def timings() -> Iterator[Timing]:
    """Forward, and forward with backward, of a window and of training batches."""
    for shape in TIMED:
        batch, steps, heads, keys, width = shape
        for dtype in (torch.float32, torch.bfloat16):
            size, matrix = dtype.itemsize, batch * heads * steps * steps * 4
            once = batch * steps * (width * ((heads + 2 * keys) * size + heads * 4) + heads * 4)
            for gate in (1.0, 6.0):
                label = f"{shape} {str(dtype)[6:]} memory e^{gate:g}"
                contenders: list[tuple[str, Any]] = [("ours", ours), ("flash-linear-attention", _peer)]
                contenders.append(("blocked, plain torch", _blocked))
                if matrix <= LARGEST_MATRIX:
                    contenders += [("torch SDPA, bias made", _sdpa), ("reference", _reference)]
                for name, op in contenders:
                    call = partial(_forward, op, shape, dtype, gate)
                    yield Timing(f"{label} forward", name, once, call)
                if matrix <= LARGEST_MATRIX:
                    call = partial(_bias_given, shape, dtype, gate)
                    yield Timing(f"{label} forward", "torch SDPA, bias at hand", once, call)
                for name, op in contenders:
                    if op is not _blocked:
                        call = partial(_training, op, shape, dtype, gate)
                        yield Timing(f"{label} forward and backward", name, 3 * once, call)


def _forward(op: Op, shape: tuple[int, ...], dtype: torch.dtype, gate: float) -> Callable[[], object]:
    given = inputs(shape, dtype, gate)
    _prove([op(*given)], [ours(*given)], dtype)
    return lambda: op(*given)


def _training(op: Op, shape: tuple[int, ...], dtype: torch.dtype, gate: float) -> Callable[[], object]:
    given, d_o = inputs(shape, dtype, gate), _weights(shape, dtype)
    _prove(_with_gradients(op, given, d_o), _with_gradients(ours, given, d_o), dtype)
    return lambda: _with_gradients(op, given, d_o)


def _peer(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Tensor:
    return peer.attend(q, k, v, log_f)


def _reference(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Tensor:
    return reference(q.float(), k.float(), v.float(), log_f)


def _blocked(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Tensor:
    return blocked.forward(q, k, v, log_f)[0]


def _bias(log_f: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, H, T, T) decay, -inf where a key is later."""
    passed = log_f.double().cumsum(1).transpose(1, 2)
    later = torch.ones(log_f.shape[1], log_f.shape[1], dtype=torch.bool, device=log_f.device).triu(1)
    return (passed[..., :, None] - passed[..., None, :]).to(dtype).masked_fill(later, -torch.inf)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Tensor:
    return _attend_with(_bias(log_f, q.dtype), q, k, v)


def _attend_with(bias: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    group = q.shape[2] // k.shape[2]
    q, k, v = (value.transpose(1, 2) for value in (q, k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)))
    return scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)


def _bias_given(shape: tuple[int, ...], dtype: torch.dtype, gate: float) -> Callable[[], object]:
    q, k, v, log_f = inputs(shape, dtype, gate)
    bias = _bias(log_f, dtype)
    _prove([_attend_with(bias, q, k, v)], [ours(q, k, v, log_f)], dtype)
    return lambda: _attend_with(bias, q, k, v)


def _prove(results: list[Tensor], own: list[Tensor], dtype: torch.dtype) -> None:
    """Peers are timed only if they agree with ours, which are proved first."""
    error, bound = largest_error(results, [value.double() for value in own]), 4 * max(BOUNDS[dtype], 1e-4)
    if not error <= bound:
        raise ArithmeticError(f"wrong result, relative error {error:.1e}")
