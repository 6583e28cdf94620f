"""`diagonal_scan` on a CUDA device: Triton kernels against the float64 reference, and their speed against peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu_checks import Check, Timing, largest_error, poisoned
from neurocompile.ops.diagonal_scan import blocked, diagonal_scan
from neurocompile.ops.diagonal_scan.reference import diagonal_scan as reference

DEVICE = "cuda"

# Odd lengths, fewer and more columns than a tile, one chunk and many.
CHECKED = [(2, 1, 3), (3, 63, 16), (2, 100, 33), (1, 111, 128), (2, 1000, 5), (4, 4097, 40), (1, 9001, 64)]
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

TIMED = [(16, 4096, 64), (1, 65536, 128), (32, 4096, 256)]


def inputs(
    shape: tuple[int, int, int], dtype: torch.dtype, *, initial: bool = True, real: bool = False
) -> list[Tensor]:
    """Stable decays, inputs and, if wanted, an initial state, fresh for each problem.

    Args:
        shape: (B, T, P).
        dtype: Type of all tensors.
        initial: Whether the initial state is among them.
        real: Whether imaginary parts are zero.

    Returns:
        The arguments of `diagonal_scan`, on `DEVICE`.
    """
    draw = torch.Generator(DEVICE).manual_seed(sum(shape) + initial)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=draw, device=DEVICE)

    radius = 1 - 0.5 * torch.rand(shape, generator=draw, device=DEVICE) ** 3
    angle = normal(*shape) * (not real)
    values = [radius * angle.cos(), radius * angle.sin(), normal(*shape), normal(*shape) * (not real)]
    if initial:
        values += [normal(shape[0], shape[2]) for _ in range(2)]
    return [value.to(dtype) for value in values]


def checks() -> Iterator[Check]:
    """States and all gradients, by type, length and presence of an initial state."""
    for dtype in DTYPES:
        for shape in CHECKED:
            for initial in (True, False):
                name = f"{str(dtype)[6:]} B,T,P={shape} {'with' if initial else 'without'} initial state"
                # Half-precision inputs are exact in float32; their gradients are rounded to the inputs' type.
                bound = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 1e-3}.get(dtype, 8e-3)
                yield Check(name, bound, partial(_error, shape, dtype, initial))


def _error(shape: tuple[int, int, int], dtype: torch.dtype, initial: bool) -> float:
    given = inputs(shape, dtype, initial=initial)
    weights = [torch.randn(shape, generator=torch.Generator().manual_seed(part)) for part in range(2)]
    with poisoned():
        actual = _states_and_gradients(diagonal_scan, given, weights)
    exact = _states_and_gradients(reference, [value.double().cpu() for value in given], weights)
    return largest_error(actual, exact)


def _states_and_gradients(op: Callable, given: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    leaves = [value.detach().requires_grad_() for value in given]
    states = op(*leaves)
    seeds = [weight.to(state) for weight, state in zip(weights, states, strict=True)]
    return [*states, *torch.autograd.grad(states, leaves, seeds)]


def timings() -> Iterator[Timing]:
    """Forward and backward of the training shapes, and the real-valued case that other kernels solve."""
    for shape in TIMED:
        for dtype in (torch.float32, torch.bfloat16):
            elements, size = shape[0] * shape[1] * shape[2], dtype.itemsize
            label = f"{shape} {str(dtype)[6:]}"
            forward = f"{label} forward"
            moved = elements * (4 * size + 2 * 4)
            yield Timing(forward, "ours", moved, partial(_forward, shape, dtype))
            yield Timing(forward, "blocked, plain torch", moved, partial(_blocked, shape, dtype))
            if dtype is torch.float32:
                yield Timing(forward, "torch associative_scan, compiled", moved, partial(_associative, shape))
                if shape[1] <= 4096:
                    yield Timing(forward, "reference loop", moved, partial(_loop, shape))
            moved = elements * (2 * size + 4 * 4 + 4 * 4)
            yield Timing(f"{label} backward", "ours", moved, partial(_backward, shape, dtype))
        moved = elements * 3 * 4
        real = f"{shape} float32 forward, real-valued"
        yield Timing(real, "ours (moves twice the bytes)", moved, partial(_forward, shape, torch.float32, real=True))
        for name in ("chunk_hgrn", "fused_recurrent_hgrn"):
            contender = f"flash-linear-attention {name}"
            yield Timing(real, contender, moved, partial(_flash_linear_attention, shape, name))


def _forward(shape: tuple[int, int, int], dtype: torch.dtype, *, real: bool = False) -> Callable[[], object]:
    given = inputs(shape, dtype, real=real)
    return lambda: diagonal_scan(*given)


def _backward(shape: tuple[int, int, int], dtype: torch.dtype) -> Callable[[], object]:
    a_re, a_im, b_re, b_im, x0_re, x0_im = inputs(shape, dtype)
    x_re, x_im = diagonal_scan(a_re, a_im, b_re, b_im, x0_re, x0_im)
    saved = (a_re, a_im, x_re, x_im, x0_re, x0_im, torch.randn_like(x_re), torch.randn_like(x_im))
    return lambda: torch.ops.neurocompile.diagonal_scan_gradients(*saved)


def _blocked(shape: tuple[int, int, int], dtype: torch.dtype) -> Callable[[], object]:
    a_re, a_im, b_re, b_im, x0_re, x0_im = inputs(shape, dtype)
    return lambda: blocked.scan((a_re, a_im), (b_re, b_im), (x0_re, x0_im))


def _loop(shape: tuple[int, int, int]) -> Callable[[], object]:
    given = inputs(shape, torch.float32)
    return lambda: reference(*given)


def _associative(shape: tuple[int, int, int]) -> Callable[[], object]:
    from torch._higher_order_ops.associative_scan import associative_scan

    def then(one: tuple[Tensor, ...], two: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        a_re, a_im, b_re, b_im = one
        c_re, c_im, d_re, d_im = two
        return (
            c_re * a_re - c_im * a_im,
            c_re * a_im + c_im * a_re,
            c_re * b_re - c_im * b_im + d_re,
            c_re * b_im + c_im * b_re + d_im,
        )

    given = inputs(shape, torch.float32, initial=False)
    compiled = torch.compile(lambda *values: associative_scan(then, values, dim=1, combine_mode="pointwise"))
    return _proved(lambda: compiled(*given), compiled(*given)[2:], diagonal_scan(*given))


def _flash_linear_attention(shape: tuple[int, int, int], name: str) -> Callable[[], object]:
    import fla.ops.hgrn

    a, _, b, _ = inputs(shape, torch.float32, initial=False, real=True)
    gate, op = a.log(), getattr(fla.ops.hgrn, name)
    return _proved(lambda: op(b, gate), [op(b, gate)[0]], [diagonal_scan(a, 0 * a, b, 0 * b)[0]])


def _proved(call: Callable[[], object], results: Sequence[Tensor], ours: Sequence[Tensor]) -> Callable[[], object]:
    """`call`, if its results agree with ours, which are proved first."""
    error = largest_error(results, [value.double() for value in ours])
    if not error <= 1e-4:
        raise ArithmeticError(f"wrong result, relative error {error:.1e}")
    return call
