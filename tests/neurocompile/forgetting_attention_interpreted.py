"""Probes of the Triton kernels of `forgetting_attention`, asked by `test_forgetting_attention_triton.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from interpreted import answer, log_gates, relative
from neurocompile.ops.forgetting_attention import blocked, triton_launch
from neurocompile.ops.forgetting_attention.triton_blocks import Blocks, Plan

NAMES = ("o", "total", "q", "k", "v", "log_f")


def inputs(batch: int, steps: int, heads: int, keys: int, width: int, dtype: str, gate: float | str) -> list[Tensor]:
    """Unit-size queries, keys and values; gates whose memory lengths vary around e^gate steps, or extreme ones."""
    draw = torch.Generator().manual_seed(steps)
    shapes = [(batch, steps, heads, width), *[(batch, steps, keys, width)] * 2, (batch, steps, heads)]
    *qkv, gates = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in shapes)
    return [value.to(getattr(torch, dtype)) for value in (*qkv, log_gates(gates, gate))]


def cut(queries: int | None = None, keys: int | None = None) -> None:
    """Sets the blocks of all kernels, for other sizes than a chip would get."""
    if queries and keys:
        whole = Plan(Blocks(queries, keys, 4, 2), Blocks(queries, keys, 4, 2), Blocks(keys, queries, 4, 2))
        triton_launch.plan = lambda *_: whole


def both(given: list[Tensor], d_o: Tensor) -> tuple[Tensor, ...]:
    """Result, logarithm of the sums and all gradients, by the kernels."""
    o, total = triton_launch.forward(*given)
    return o, total, *triton_launch.gradients(*given, o, total, d_o)


def errors(case: dict, blocks: list[int], turned: bool = False) -> dict[str, float]:
    """Errors against the blocked form in float64, relative to the largest value; `turned`: strided inputs."""
    given = inputs(**case)
    if turned:
        given = [value.transpose(0, 1).contiguous().transpose(0, 1) for value in given]
        assert not given[0].is_contiguous()
    wide = [value.double() for value in given]
    d_o = torch.randn(given[0].shape, generator=torch.Generator().manual_seed(1)).to(given[0].dtype)
    cut(*blocks)
    results = both(given, d_o)
    exact = blocked.forward(*wide)
    exact = exact + blocked.gradients(*wide, *exact, d_o.double())
    assert {value.dtype for value in results[2:]} == {given[0].dtype}
    return {name: relative(got, want) for name, got, want in zip(NAMES, results, exact, strict=True)}


def padded(lengths: list[int], blocks: list[int]) -> dict[str, float]:
    """A padded batch against its sequences one by one: largest difference, and largest gradient of the padding."""
    cut(*blocks)
    steps, fill = max(lengths), 9.0
    alone = [inputs(1, length, 2, 1, 8, "float32", 1.0) for length in lengths]
    whole = [torch.full((len(lengths), steps, *value.shape[2:]), fill) for value in alone[0]]
    for row, (length, given) in enumerate(zip(lengths, alone, strict=True)):
        for value, part in zip(whole, given, strict=True):
            value[row, :length] = part[0]
    d_o = torch.randn(whole[0].shape, generator=torch.Generator().manual_seed(2))
    for row, length in enumerate(lengths):
        d_o[row, length:] = 0
    o, _, *gradients = both(whole, d_o)
    difference = leak = 0.0
    for row, (length, given) in enumerate(zip(lengths, alone, strict=True)):
        one, _, *own = both(given, d_o[row : row + 1, :length].contiguous())
        for got, want in zip((o, *gradients), (one, *own), strict=True):
            difference = max(difference, relative(got[row, :length], want[0]))
        for value in gradients:
            if length < steps:
                leak = max(leak, relative(value[row, length:], torch.zeros(())))
    return {"difference": difference, "leak": leak}


def omitted(gate: float, steps: int, blocks: list[int]) -> dict[str, float]:
    """What the backward pass leaves out: largest share of a softmax, and how much of the pairs."""
    cut(*blocks)
    case = {"batch": 1, "steps": steps, "heads": 2, "keys": 1, "width": 8, "dtype": "float32"}
    given = inputs(**case, gate=gate)
    seen = {}
    launch = triton_launch._Problem.launch

    def spy(self, kernel, programs, sizes, **tensors):
        launch(self, kernel, programs, sizes, **tensors)
        seen.update(tensors)

    triton_launch._Problem.launch = spy
    both(given, torch.ones_like(given[0]))
    triton_launch._Problem.launch = launch
    first = seen["first"].reshape(2, -1).repeat_interleave(blocks[0], 1)[:, :steps] * blocks[1]
    q, k, _, log_f = (value.double()[0] for value in given)
    passed = log_f.cumsum(0).T
    s = torch.einsum("ihd,jd->hij", q, k[:, 0]) / 8**0.5 + passed[:, :, None] - passed[:, None, :]
    s = s.masked_fill(torch.ones(steps, steps, dtype=torch.bool).triu(1), -torch.inf)
    left = torch.arange(steps)[None, None, :] < first[:, :, None]
    return {"share": float((s.softmax(-1) * left).sum(-1).max()), "pairs": float(2 * left.double().mean())}


def unread(gate: float, steps: int, spoilt: int, blocks: list[int]) -> float:
    """Share of results that are finite behind the first block of queries if the first `spoilt` values are NaN."""
    cut(*blocks)
    given = inputs(1, steps, 1, 1, 8, "float32", gate)
    given[2][:, :spoilt] = torch.nan
    o, _ = triton_launch.forward(*given)
    return float(o[:, steps // 2 :].isfinite().double().mean())


def empty() -> list[list[int]]:
    """Shapes of everything for an empty sequence."""
    given = inputs(2, 0, 4, 2, 8, "float32", 1.0)
    return [list(value.shape) for value in both(given, torch.zeros_like(given[0]))]


if __name__ == "__main__":
    answer(triton_launch, "plan", errors, padded, omitted, unread, empty)
