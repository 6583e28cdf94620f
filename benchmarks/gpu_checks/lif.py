"""`lif` on a CUDA device: the Triton kernels against the definition, spike by spike, and speed against peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu_checks import Check, Timing, largest_error, poisoned
from neurocompile.ops.lif import Neuron, lif
from neurocompile.ops.lif.reference import lif as reference

DEVICE = "cuda"

# Shapes of input and decay: odd sizes, decays for all, for channels, and for every step and neuron.
CHECKED = [
    ((1, 5), ()), ((3, 1, 1111), ()), ((8, 2, 65, 33), (65, 1)), ((5, 2, 4, 63), (5, 2, 4, 63)), ((100, 7), (100, 1)),
    ((3, 300_001), ()), ((1000, 64), (64,)),
]  # fmt: skip
NEURONS = {
    "soft": Neuron(),
    "sampler": Neuron(v_reset=0.0, strict=True, surrogate="rectangle", alpha=1.0),
    "hard": Neuron(v_reset=0.0, detach_reset=True),
    "sigmoid": Neuron(threshold=0.7, surrogate="sigmoid", alpha=4.0),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
BOUNDS = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Of gradients; half precision rounds those by the input to its type. Spikes and membranes may not differ at all."""

# First layer of EAS-SNN at 640 x 640; stage 1 of an I2E network, batch of 32; a small layer over many steps.
TIMED = [(3, 64 * 160 * 160), (8, 32 * 64 * 32 * 32), (1024, 512)]


def inputs(shape: tuple[int, ...], decay: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """Inputs of which a third makes a neuron fire; decays and membranes are float32 in a network of any precision.

    Args:
        shape: (T, ..) of the input.
        decay: Shape of the decay.
        dtype: Type of the input.

    Returns:
        The arguments of the op, on `DEVICE`.
    """
    draw = torch.Generator(DEVICE).manual_seed(sum(shape))
    wide = torch.promote_types(dtype, torch.float32)
    x = (0.3 + 1.2 * torch.randn(shape, generator=draw, device=DEVICE)).to(dtype)
    d = torch.rand(decay, generator=draw, device=DEVICE).to(wide)
    return [x, d, torch.randn(shape[1:], generator=draw, device=DEVICE).to(wide)]


def checks() -> Iterator[Check]:
    """Spikes and membranes without an error, gradients with one of rounding; by type, shape and neuron."""
    for dtype in DTYPES:
        for shape, decay in CHECKED:
            for name, neuron in NEURONS.items():
                label = f"{str(dtype)[6:]} {shape} decay {decay} {name}"
                yield Check(f"{label}: spikes and membranes", 1e-30, partial(_differing, shape, decay, dtype, neuron))
                yield Check(f"{label}: gradients", BOUNDS[dtype], partial(_error, shape, decay, dtype, neuron))


def _differing(shape: tuple[int, ...], decay: tuple[int, ...], dtype: torch.dtype, neuron: Neuron) -> float:
    """The share of spikes and membranes that are not those of the definition in the same type."""
    x, d, v = inputs(shape, decay, dtype)
    with poisoned(), torch.no_grad():
        spikes, last = lif(x, d, v, neuron)
    x, d, v = (value.cpu() for value in (x, d, v))
    with torch.no_grad():
        wanted, wanted_last = reference(x.to(d.dtype), d, v, neuron)
    differs = (spikes.cpu().to(d.dtype) != wanted).double().mean() + (last.cpu() != wanted_last).double().mean()
    return float(differs)


def _error(shape: tuple[int, ...], decay: tuple[int, ...], dtype: torch.dtype, neuron: Neuron) -> float:
    """Of gradients, against the definition in the type of the membranes, where the same neurons fire."""
    given = inputs(shape, decay, dtype)
    seeds = [torch.randn(size, generator=torch.Generator().manual_seed(1)) for size in (shape, shape[1:])]
    with poisoned():
        actual = _gradients(lif, given, seeds, neuron)
    wide = [value.to(given[1].dtype).cpu() for value in given]
    return largest_error(actual, [value.double() for value in _gradients(reference, wide, seeds, neuron)])


def _gradients(op: Callable, given: list[Tensor], seeds: list[Tensor], neuron: Neuron) -> list[Tensor]:
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in given]
        results = op(*leaves, neuron)
        return list(torch.autograd.grad(results, leaves, [s.to(r) for s, r in zip(seeds, results, strict=True)]))


def timings() -> Iterator[Timing]:
    """Forward, and forward with backward, of layers of the published networks."""
    for shape in TIMED:
        for dtype in (torch.float32, torch.bfloat16):
            moved = shape[0] * shape[1] * 2 * dtype.itemsize
            label = f"{shape} {str(dtype)[6:]}"
            contenders: list[tuple[str, Callable]] = [("ours", lif), ("loop in torch", reference)]
            contenders += [(f"SpikingJelly, {backend}", partial(_spikingjelly, backend)) for backend in _BACKENDS]
            for name, op in contenders:
                yield Timing(f"{label} forward", name, moved, partial(_forward, op, shape, dtype))
                # The membranes are written once and read once, gradients of the spikes read and of the input written.
                both = 2 * moved + shape[0] * shape[1] * 8
                yield Timing(f"{label} forward and backward", name, both, partial(_training, op, shape, dtype))


_BACKENDS = ("torch", "triton", "cupy")


def _forward(op: Callable, shape: tuple[int, ...], dtype: torch.dtype) -> Callable[[], object]:
    given = _timed_inputs(shape, dtype)
    _prove(op(*given, NEURONS["hard"])[0], given)
    return lambda: op(*given, NEURONS["hard"])


def _training(op: Callable, shape: tuple[int, ...], dtype: torch.dtype) -> Callable[[], object]:
    x, decay, v = _timed_inputs(shape, dtype)
    _prove(op(x, decay, v, NEURONS["hard"])[0], [x, decay, v])
    seed = torch.ones_like(x)

    def call() -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            spikes = op(leaf, decay, v, NEURONS["hard"])[0]
            return torch.autograd.grad(spikes, leaf, seed.to(spikes))[0]

    return call


def _timed_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    x, _, _ = inputs(shape, (), dtype)
    return [x, torch.tensor(0.5, device=DEVICE), torch.zeros(shape[1:], device=DEVICE)]


def _spikingjelly(backend: str, x: Tensor, decay: Tensor, v: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """I2E's neuron of SpikingJelly, from rest."""
    from spikingjelly.activation_based.neuron import LIFNode
    from spikingjelly.activation_based.surrogate import ATan

    options = {"v_threshold": neuron.threshold, "v_reset": neuron.v_reset, "detach_reset": neuron.detach_reset}
    peer = LIFNode(tau=2.0, decay_input=False, surrogate_function=ATan(), step_mode="m", backend=backend, **options)
    return peer(x), v


def _prove(spikes: Tensor, given: list[Tensor]) -> None:
    """Peers are timed only if they fire as ours, which are proved first; half-precision membranes may differ a bit."""
    x, decay, v = given
    share = float((spikes.float() != lif(x, decay, v, NEURONS["hard"])[0].float()).double().mean())
    allowed = 0.0 if given[0].dtype is torch.float32 else 2e-2
    if not share <= allowed:
        raise ArithmeticError(f"other spikes, a share of {share:.1e}")
