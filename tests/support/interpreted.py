"""What the scripts share that run Triton's kernels in Triton's interpreter.

The interpreter has to be chosen before Triton is first imported, hence processes of their own: the fixture `interpret`
starts a script with TRITON_INTERPRET=1, writes questions to its standard input and reads answers, both as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def poison() -> None:
    """Makes fresh memory NaN, or the least whole number, so that an element no kernel writes shows."""
    fresh = torch.empty

    def spoilt(*args, **options):
        memory = fresh(*args, **options)
        return memory.fill_(float("nan") if memory.is_floating_point() else torch.iinfo(memory.dtype).min)

    torch.empty = spoilt
    assert torch.empty(1).isnan().all()


def relative(got: Tensor, want: Tensor, floor: float = 1e-3) -> float:
    """The largest difference, relative to the largest value wanted or to `floor`."""
    # NaN compares false with everything and would pass as "no error", so it is made infinite.
    error = (got.double() - want.double()).abs().nan_to_num(torch.inf, torch.inf)
    return float(error.max() / want.abs().max().clamp(min=floor)) if error.numel() else 0.0


def log_gates(normal: Tensor, gate: float | str) -> Tensor:
    """Logarithms of forget gates (B, T, H) whose memory lengths vary around e^gate steps, or extreme ones."""
    if gate != "extreme":
        return logsigmoid(gate + 1.5 * normal)
    log_f = torch.zeros_like(normal)
    log_f[:, ::9], log_f[:, 1::9], log_f[:, 2::9] = -300.0, -1e-6, -2.0
    log_f[:, normal.shape[1] // 2 :: 40] = -1e5
    return log_f


def answer(launch: ModuleType, sizes: str, *probes: Callable[..., Any]) -> None:
    """Answers the `[probe, arguments]` on standard input by functions of that name; fresh memory is NaN.

    Probes may set what `launch` calls `sizes`; each finds it as it was at first.
    """
    poison()
    first, named, answers = getattr(launch, sizes), {probe.__name__: probe for probe in probes}, []
    for name, arguments in json.load(sys.stdin):
        setattr(launch, sizes, first)
        answers.append(named[name](**arguments))
    print(json.dumps(answers))
