"""Times `lif` on the CPU against its definition, a loop over steps in torch.

`python -m benchmarks.lif [--threads N]` prints the table of the op's README: processor time, best of several calls.
Nothing is timed whose spikes, membranes or gradients differ from the definition's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from neurocompile.ops.lif import Neuron, lif
from neurocompile.ops.lif.reference import lif as reference
from runtime.errors import GateError, guard

# Steps and neurons: the first layer of EAS-SNN at 640 x 640, stage 1 of an I2E network, small layers over many steps.
SHAPES = [(3, 64 * 160 * 160), (8, 64 * 32 * 32), (256, 512), (8, 4096)]
NEURONS = {"soft": Neuron(), "hard": Neuron(v_reset=0.0, detach_reset=True)}

Op = Callable[..., tuple[Tensor, Tensor]]


def inputs(steps: int, neurons: int) -> list[Tensor]:
    """Inputs of which a third makes a neuron fire, a decay of 1/2, and a membrane of zero."""
    draw = torch.Generator().manual_seed(steps)
    return [0.3 + 1.2 * torch.randn(steps, neurons, generator=draw), torch.tensor(0.5), torch.zeros(neurons)]


def milliseconds(call: Callable[[], object], seconds: float = 1.0) -> float:
    """The least processor time of a call, warm, out of at least three."""
    call()
    best, count, end = float("inf"), 0, time.perf_counter() + seconds
    while count < 3 or time.perf_counter() < end:
        begin = time.process_time()
        call()
        best, count = min(best, time.process_time() - begin), count + 1
    return best * 1e3


def forward(op: Op, given: list[Tensor], neuron: Neuron) -> list[Tensor]:
    """Spikes and last membrane, without autograd."""
    with torch.no_grad():
        return list(op(*given, neuron))


def training(op: Op, given: list[Tensor], neuron: Neuron) -> list[Tensor]:
    """The gradient by the input, forward pass included; the decay is a constant, as in the I2E networks."""
    x = given[0].detach().requires_grad_()
    spikes, last = op(x, *given[1:], neuron)
    return list(torch.autograd.grad(spikes.sum() + last.sum(), x))


def prove(given: list[Tensor], neuron: Neuron) -> None:
    """Refuses results that differ from the definition's.

    Args:
        given: The arguments of the op.
        neuron: Its kind.

    Raises:
        GateError: If a spike or a membrane differs at all, or a gradient by more than rounding.
    """
    if not all(map(torch.equal, forward(lif, given, neuron), forward(reference, given, neuron))):
        raise GateError(f"lif is wrong: spikes or membranes of {tuple(given[0].shape)} differ from the definition's")
    (got,), (want,) = training(lif, given, neuron), training(reference, given, neuron)
    error = ((got - want).abs().max() / want.abs().max()).item()
    if not error <= 1e-5:
        raise GateError(f"lif is wrong: gradients of {tuple(given[0].shape)} differ by {error:.1e} of the largest")


def run() -> None:
    """Prints a row per shape and kind of reset."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; processor time in ms")
    print("T, N, reset                  forward      loop  training      loop")
    for shape in SHAPES:
        given = inputs(*shape)
        for name, neuron in NEURONS.items():
            prove(given, neuron)
            row = [
                milliseconds(partial(call, op, given, neuron))
                for call in (forward, training)
                for op in (lif, reference)
            ]
            print(f"{f'{shape}, {name}':26s}" + "".join(f"{value:10.2f}" for value in row), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table.

    Args:
        arguments: Of the command line; `sys.argv` if `None`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="benchmarks.lif", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    return guard(run)


if __name__ == "__main__":
    sys.exit(main())
