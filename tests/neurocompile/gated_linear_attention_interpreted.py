"""Probes of the Triton kernel of `gated_linear_attention`, asked by `test_gated_linear_attention_triton.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from interpreted import answer, log_gates, relative
from neurocompile.ops.gated_linear_attention import triton_launch
from neurocompile.ops.gated_linear_attention.reference import gated_linear_attention as reference
from neurocompile.ops.gated_linear_attention.triton_blocks import Blocks

NAMES = ("o", "last", "q", "k", "v", "log_f", "state")


def inputs(case: dict) -> list[Tensor]:
    """Unit-size tensors; gates whose memory lengths vary around e^gate steps, or extreme ones."""
    batch, steps, heads, keys = (case[name] for name in ("batch", "steps", "heads", "keys"))
    width, out, gate = (case[name] for name in ("width", "out", "gate"))
    draw = torch.Generator().manual_seed(steps)
    shapes = [(batch, steps, heads, width), (batch, steps, keys, width), (batch, steps, keys, out)]
    shapes += [(batch, steps, heads), (batch, heads, width, out)]
    q, k, v, gates, state = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in shapes)
    dtype = getattr(torch, case["dtype"])
    # Gates and states are float32 in a network of any precision.
    return [*(value.to(dtype) for value in (q, k, v)), log_gates(gates, gate).float(), state.float()]


def cut(steps: int | None = None, columns: int | None = None) -> None:
    """Sets the blocks, for other sizes than a chip would get."""
    if steps and columns:
        triton_launch.plan = lambda *_: Blocks(steps, columns, 4, 2)


def both(given: list[Tensor], d_o: Tensor, d_last: Tensor) -> tuple[Tensor, ...]:
    """Results and all gradients, by the kernel."""
    o, last = triton_launch.forward(*given)
    return o, last, *triton_launch.gradients(*given, last, d_o, d_last)


def weights(given: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Gradients by the results, the first in the type of the operands."""
    q, _, v, _, state = given
    draw = torch.Generator().manual_seed(1)
    d_o = torch.randn(*q.shape[:3], v.shape[3], generator=draw).to(q.dtype)
    return d_o, torch.randn(state.shape, generator=draw)


def errors(case: dict, blocks: list[int], turned: bool = False) -> dict[str, float]:
    """Errors against the definition in float64, relative to the largest value; `turned`: strided inputs."""
    given = inputs(case)
    if turned:
        given = [value.transpose(0, 1).contiguous().transpose(0, 1) for value in given]
        assert not given[0].is_contiguous()
    d_o, d_last = weights(given)
    cut(*blocks)
    results = both(given, d_o, d_last)
    assert [value.dtype for value in results[2:]] == [value.dtype for value in given]
    leaves = [value.double().requires_grad_() for value in given]
    exact = reference(*leaves)
    exact = *exact, *torch.autograd.grad(exact, leaves, (d_o.double(), d_last.double()))
    # A gate's gradient is a sum of unit-size terms; that of a shut one is small because they cancel.
    floors = {"log_f": 1.0}
    return {
        name: relative(got, want, floors.get(name, 1e-3)) for name, got, want in zip(NAMES, results, exact, strict=True)
    }


def after_a_shut_gate(steps: int, shut: int, blocks: list[int]) -> float:
    """Largest change of results behind a gate of -1e5 when all before it becomes something else."""
    cut(*blocks)
    case = {"batch": 1, "steps": steps, "heads": 2, "keys": 1, "width": 8, "out": 8, "gate": 2.0, "dtype": "float32"}
    given = inputs(case)
    given[3][:, shut] = -1e5
    o, last = triton_launch.forward(*given)
    for value in given[:3]:
        value[:, :shut] *= -3
    given[4] *= 7
    other, other_last = triton_launch.forward(*given)
    assert not torch.equal(o[:, :shut], other[:, :shut])
    return max(relative(other[:, shut:], o[:, shut:]), relative(other_last, last))


def split(case: dict, marks: list[int], blocks: list[int]) -> float:
    """Difference of a sequence in pieces, with the state handed on, from the whole."""
    cut(*blocks)
    *given, state = inputs(case)
    whole, last = triton_launch.forward(*given, state)
    pieces = []
    for begin, end in zip([0, *marks], [*marks, case["steps"]], strict=True):
        piece, state = triton_launch.forward(*(value[:, begin:end] for value in given), state)
        pieces.append(piece)
    return max(relative(torch.cat(pieces, 1), whole), relative(state, last))


def padded(lengths: list[int], blocks: list[int]) -> dict[str, float]:
    """A padded batch against its sequences one by one: largest difference, and largest gradient of the padding."""
    cut(*blocks)
    case = {"batch": 1, "heads": 2, "keys": 1, "width": 8, "out": 6, "gate": 1.0, "dtype": "float32"}
    alone = [inputs(case | {"steps": length}) for length in lengths]
    whole = [torch.full((len(lengths), max(lengths), *value.shape[2:]), 9.0) for value in alone[0][:4]]
    whole[3].fill_(-0.5)
    whole.append(torch.cat([given[4] for given in alone]))
    d_o, d_last = weights(whole)
    for row, (length, given) in enumerate(zip(lengths, alone, strict=True)):
        d_o[row, length:] = 0
        for value, part in zip(whole, given[:4], strict=False):
            value[row, :length] = part[0]
    d_last.zero_()
    o, _, *gradients = both(whole, d_o, d_last)
    difference = leak = 0.0
    for row, (length, given) in enumerate(zip(lengths, alone, strict=True)):
        one, _, *own = both(given, d_o[row : row + 1, :length].contiguous(), d_last[row : row + 1])
        for got, want in zip((o, *gradients[:4]), (one, *own[:4]), strict=True):
            difference = max(difference, relative(got[row, :length], want[0]))
        difference = max(difference, relative(gradients[4][row], own[4][0]))
        if length < max(lengths):
            leak = max(leak, *(float(value[row, length:].abs().max()) for value in gradients[:4]))
    return {"difference": difference, "leak": leak}


def empty() -> list[list[int]]:
    """Shapes of everything for no sequence."""
    case = {"batch": 0, "steps": 3, "heads": 4, "keys": 2, "width": 8, "out": 6, "gate": 1.0, "dtype": "float32"}
    given = inputs(case)
    return [list(value.shape) for value in both(given, *weights(given))]


if __name__ == "__main__":
    answer(triton_launch, "plan", errors, after_a_shut_gate, split, padded, empty)
