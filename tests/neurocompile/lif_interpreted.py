"""Probes of the Triton kernels of `lif`, asked by `test_lif_triton.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from interpreted import answer, relative
from neurocompile.ops.lif import Neuron, blocked, triton_launch

NAMES = ("x", "decay", "v")


def inputs(shape: list[int], decay: list[int], dtype: str) -> list[Tensor]:
    """Inputs that make a third of the neurons fire; decays and membranes are float32 in a network of any precision."""
    draw = torch.Generator().manual_seed(sum(shape))
    x = 0.3 + 1.2 * torch.randn(shape, generator=draw, dtype=torch.float64)
    d = torch.rand(decay, generator=draw, dtype=torch.float64)
    v = torch.randn(shape[1:], generator=draw, dtype=torch.float64)
    wide = torch.float64 if dtype == "float64" else torch.float32
    return [x.to(getattr(torch, dtype)), d.to(wide), v.to(wide)]


def errors(
    shape: list[int], decay: list[int], dtype: str, neuron: dict, block: int, turned: bool = False
) -> dict[str, float]:
    """Spikes and membranes that differ from the blocked form's, in the same type; errors of gradients, in float64."""
    kind = Neuron(**neuron)
    x, d, v = inputs(shape, decay, dtype)
    if turned:
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
        assert not x.is_contiguous()
    triton_launch.BLOCK = block
    spikes, last, membranes = triton_launch.forward(x, d, v, kind, True)
    alone = triton_launch.forward(x, d, v, kind, False)
    same = blocked.forward(x, d, v, kind, True)
    assert alone[2].shape[0] == 0
    assert spikes.dtype == x.dtype
    results = {
        "spikes": float((spikes != same[0]).double().mean() + (alone[0] != same[0]).double().mean()),
        "last": float((last != same[1]).double().mean() + (alone[1] != same[1]).double().mean()),
        "membranes": float((membranes != same[2]).double().mean()),
    }
    draw = torch.Generator().manual_seed(1)
    d_spikes, d_last = (torch.randn(value.shape, generator=draw).to(value.dtype) for value in (spikes, last))
    got = triton_launch.gradients(membranes, d, v, d_spikes, d_last, kind)
    assert [value.dtype for value in got] == [x.dtype, d.dtype, v.dtype]
    wide = (value.double() for value in (membranes, d, v, d_spikes, d_last))
    want = blocked.gradients(*wide, kind)
    # Gradients are sums of unit-size terms, which may cancel.
    return results | {name: relative(*pair, floor=1) for name, *pair in zip(NAMES, got, want, strict=True)}


def split(shape: list[int], marks: list[int], neuron: dict) -> bool:
    """Whether a sequence in pieces, with the membrane handed on, is the whole one to the last bit."""
    kind = Neuron(**neuron)
    x, d, v = inputs(shape, [], "float32")
    whole, last, _ = triton_launch.forward(x, d, v, kind, False)
    pieces = []
    for begin, end in zip([0, *marks], [*marks, shape[0]], strict=True):
        piece, v, _ = triton_launch.forward(x[begin:end], d, v, kind, False)
        pieces.append(piece)
    return torch.equal(torch.cat(pieces), whole) and torch.equal(v, last)


def empty() -> list[list[int]]:
    """Shapes of the results for a layer without neurons."""
    x, d, v = inputs([3, 0], [], "float32")
    return [list(value.shape) for value in triton_launch.forward(x, d, v, Neuron(), True)]


if __name__ == "__main__":
    answer(triton_launch, "BLOCK", errors, split, empty)
