"""`gated_linear_attention` on a CUDA device: the Triton kernel against a float64 reference, and speed against peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from benchmarks.gpu_checks import Check, Timing, largest_error, poisoned
from neurocompile.ops.gated_linear_attention import blocked, peer
from neurocompile.ops.gated_linear_attention.reference import gated_linear_attention as reference

DEVICE = "cuda"

# (B, T, H, K, D, E): odd lengths, all groupings of heads, padded and full widths, one block and many.
CHECKED = [
    (2, 1, 2, 1, 32, 32), (2, 63, 1, 1, 16, 16), (1, 100, 6, 3, 32, 32), (2, 111, 4, 4, 64, 40),
    (1, 300, 4, 2, 128, 128), (1, 1000, 3, 1, 24, 33), (2, 1024, 2, 1, 32, 32), (1, 4097, 2, 1, 64, 64),
]  # fmt: skip
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Half precision rounds the pairs' weights to 8 or 11 bits where they meet values, and gradients to their type.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}

# Memory of about one step, of e^6 steps, and gates that shut.
GATES = (0.0, 6.0, "extreme")

# A training batch of N-MNIST; one stream in chunks, as deployment has it; a wider training batch.
TIMED = [(32, 256, 4, 2, 32, 32), (1, 4096, 4, 2, 32, 32), (16, 4096, 4, 4, 64, 64)]

Op = Callable[..., tuple[Tensor, Tensor]]


def ours(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The op by our own kernel, also where training would use a peer's."""
    return torch.ops.neurocompile.gated_linear_attention_sums(q, k, v, log_f, state)


def inputs(shape: tuple[int, ...], dtype: torch.dtype, gate: float | str) -> list[Tensor]:
    """Unit-size queries, keys, values and states, and gates.

    Args:
        shape: (B, T, H, K, D, E).
        dtype: Type of queries, keys and values; gates and states are float32.
        gate: Memory lengths vary around e^gate steps; `"extreme"`: open, nearly open and shut ones.

    Returns:
        The arguments of the op, on `DEVICE`.
    """
    batch, steps, heads, keys, width, out = shape
    draw = torch.Generator(DEVICE).manual_seed(sum(shape))

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=draw, device=DEVICE)

    q, k, v = normal(batch, steps, heads, width), normal(batch, steps, keys, width), normal(batch, steps, keys, out)
    if isinstance(gate, str):
        log_f = torch.zeros(batch, steps, heads, device=DEVICE)
        log_f[:, 3::9], log_f[:, 1::9], log_f[:, 2::9], log_f[:, 50::100] = -300.0, -1e-6, -2.0, -1e5
    else:
        log_f = logsigmoid(gate + 1.5 * normal(batch, steps, heads))
    return [q.to(dtype), k.to(dtype), v.to(dtype), log_f, normal(batch, heads, width, out)]


def checks() -> Iterator[Check]:
    """Results and all gradients, by type, shape and gates; that two runs give the same bits; carried states."""
    for dtype in DTYPES:
        for shape in CHECKED:
            for gate in GATES:
                name = f"{str(dtype)[6:]} B,T,H,K,D,E={shape} gates {gate}"
                yield Check(name, BOUNDS[dtype], partial(_error, shape, dtype, gate))
        yield Check(f"{str(dtype)[6:]} the same bits in every run", 1e-30, partial(_change, CHECKED[-2], dtype))
        yield Check(f"{str(dtype)[6:]} in pieces", BOUNDS[dtype], partial(_pieces, CHECKED[-3], dtype))


def _error(shape: tuple[int, ...], dtype: torch.dtype, gate: float | str) -> float:
    given, seeds = inputs(shape, dtype, gate), _seeds(shape, dtype)
    with poisoned():
        actual = _with_gradients(ours, given, seeds)
    return largest_error(actual, _with_gradients(_exact, [value.double() for value in given], seeds))


def _change(shape: tuple[int, ...], dtype: torch.dtype) -> float:
    given, seeds = inputs(shape, dtype, 2.0), _seeds(shape, dtype)
    once, again = (_with_gradients(ours, given, seeds) for _ in range(2))
    return largest_error(once, [value.double() for value in again])


def _pieces(shape: tuple[int, ...], dtype: torch.dtype) -> float:
    *given, state = inputs(shape, dtype, 4.0)
    whole, last = _exact(*(value.double() for value in (*given, state)))
    marks: list[int] = [0, 1, 18, shape[1] // 2, shape[1]]
    pieces: list[Tensor] = []
    for begin, end in pairwise(marks):
        q, k, v, log_f = (value[:, begin:end] for value in given)
        piece, state = ours(q, k, v, log_f, state)
        pieces.append(piece)
    return largest_error([torch.cat(pieces, 1), state], [whole, last])


def _exact(*given: Tensor) -> tuple[Tensor, Tensor]:
    """The definition for short sequences, for long ones the blocks that tests hold to it."""
    return reference(*given) if given[0].shape[1] <= 111 else blocked.forward(*given)


def _seeds(shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """Gradients by both results, the first in the type that a network of `dtype` hands over."""
    batch, steps, heads, _, width, out = shape
    draw = torch.Generator(DEVICE).manual_seed(1)
    d_o = torch.randn(batch, steps, heads, out, generator=draw, device=DEVICE)
    return [d_o.to(dtype), torch.randn(batch, heads, width, out, generator=draw, device=DEVICE)]


def _with_gradients(op: Op, given: list[Tensor], seeds: list[Tensor]) -> list[Tensor]:
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in given]
        results = op(*leaves)
        return [*results, *torch.autograd.grad(results, leaves, [s.to(r) for s, r in zip(seeds, results, strict=True)])]


def timings() -> Iterator[Timing]:
    """Forward, and forward with backward, of training batches and of one stream."""
    for shape in TIMED:
        batch, steps, heads, keys, width, out = shape
        for dtype in (torch.float32, torch.bfloat16):
            size = dtype.itemsize
            row = size * (heads * width + keys * (width + out)) + 4 * heads * (out + 1)
            once = batch * (steps * row + 8 * heads * width * out)
            label = f"{shape} {str(dtype)[6:]}"
            contenders = [("ours", ours), ("flash-linear-attention", _peer), ("flash, recurrent", _recurrent)]
            contenders.append(("blocked, plain torch", blocked.forward))
            for name, op in contenders:
                yield Timing(f"{label} forward", name, once, partial(_forward, op, shape, dtype))
                yield Timing(f"{label} forward and backward", name, 3 * once, partial(_training, op, shape, dtype))


def _forward(op: Op, shape: tuple[int, ...], dtype: torch.dtype) -> Callable[[], object]:
    given = inputs(shape, dtype, 4.0)
    _prove(list(op(*given)), list(ours(*given)), dtype)
    return lambda: op(*given)


def _training(op: Op, shape: tuple[int, ...], dtype: torch.dtype) -> Callable[[], object]:
    given, seeds = inputs(shape, dtype, 4.0), _seeds(shape, dtype)
    _prove(_with_gradients(op, given, seeds), _with_gradients(ours, given, seeds), dtype)
    return lambda: _with_gradients(op, given, seeds)


def _peer(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return peer.attend(q, k, v, log_f, state)


def _recurrent(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The same library's kernel that takes one position after the other."""
    from fla.ops.simple_gla import fused_recurrent_simple_gla

    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    o, last = fused_recurrent_simple_gla(
        q, k, v, g=log_f, scale=q.shape[3] ** -0.5, initial_state=state, output_final_state=True
    )
    return o.float(), last


def _prove(results: list[Tensor], own: list[Tensor], dtype: torch.dtype) -> None:
    """Peers are timed only if they agree with ours, which are proved first."""
    error, bound = largest_error(results, [value.double() for value in own]), 4 * max(BOUNDS[dtype], 1e-3)
    if not error <= bound:
        raise ArithmeticError(f"wrong result, relative error {error:.1e}")
