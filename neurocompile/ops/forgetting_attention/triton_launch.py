"""`forgetting_attention` for CUDA tensors: plans and launches the Triton kernels. Importing this file imports Triton.

Forward takes three launches (key lengths, prefix sums of the gates, attention), backward six; nothing is tuned at run
time, `triton_blocks.py` has the block sizes. Products of float32 inputs follow `torch.backends.cuda.matmul.allow_tf32`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from neurocompile.ops.forgetting_attention.triton_blocks import SEARCH, WIDEST, Blocks, Plan, plan, span
from neurocompile.ops.forgetting_attention.triton_gradient import gate_kernel, key_kernel, query_kernel, share_kernel
from neurocompile.ops.forgetting_attention.triton_kernel import forward_kernel, prefix_kernel, size_kernel
from neurocompile.ops.machine_code import precision


def supports(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> bool:
    """Whether the kernels take these inputs: no float64, heads of at most `WIDEST` channels, NVIDIA from 7.5 on."""
    if torch.version.hip is not None or q.shape[-1] > WIDEST:
        return False
    if torch.float64 in (q.dtype, k.dtype, v.dtype, log_f.dtype):
        return False
    return torch.cuda.get_device_capability(q.device) >= (7, 5)


def forward(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> tuple[Tensor, Tensor]:
    """The op, without autograd, and what its adjoint needs.

    Args:
        q: (B, T, H, D); bfloat16, float16 or float32 like `k` and `v`, multiplied in the widest of their types.
        k: (B, T, K, D).
        v: (B, T, K, D).
        log_f: (B, T, H), of any of these types.

    Returns:
        (B, T, H, D) float32 result and (B H, T) float32 logarithm of the sum of every softmax.
    """
    problem = _Problem.of(q, k, v, log_f)
    o, total = problem.empty(q.shape), problem.empty((problem.rows, problem.steps))
    if o.numel():
        blocks = problem.plan.forward
        problem.launch(
            forward_kernel,
            problem.rows * triton.cdiv(problem.steps, blocks.queries),
            blocks,
            q=problem.q,
            k=problem.k,
            v=problem.v,
            **problem.prefix(blocks),
            o=o,
            total=total,
        )
    return o, total


def gradients(
    q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, o: Tensor, total: Tensor, d_o: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The adjoint, the same in every run.

    Args:
        q: (B, T, H, D).
        k: (B, T, K, D).
        v: (B, T, K, D).
        log_f: (B, T, H).
        o: First result of `forward`.
        total: Second result of `forward`.
        d_o: (B, T, H, D) gradient by `o`, rounded to the type in which products are taken.

    Returns:
        Gradients by `q, k, v, log_f`, in their types.
    """
    results = tuple(torch.empty(value.shape, dtype=value.dtype, device=value.device) for value in (q, k, v, log_f))
    if not q.numel():
        return tuple(result.zero_() for result in results)
    problem = _Problem.of(q, k, v, log_f)
    blocks = problem.plan.query
    turns = problem.rows * triton.cdiv(problem.steps, blocks.queries)
    d_o, o, total = d_o.to(problem.q.dtype).contiguous(), o.contiguous(), total.contiguous()
    passed = problem.prefix(blocks)
    share, rows, columns = (problem.empty((problem.rows, problem.steps)) for _ in range(3))
    first = torch.empty(turns, dtype=torch.int32, device=q.device)
    shared = {"q": problem.q, "d_o": d_o, "high": passed["high"], "low": passed["low"], "total": total}
    problem.launch(share_kernel, turns, blocks, **shared | passed, o=o, share=share, first=first)
    shared |= {"k": problem.k, "v": problem.v, "share": share, "first": first}
    problem.launch(query_kernel, turns, blocks, **shared, d_q=results[0], rows=rows)
    keys = problem.batch * problem.key_heads * triton.cdiv(problem.steps, problem.plan.key.keys)
    problem.launch(key_kernel, keys, problem.plan.key, **shared, d_k=results[1], d_v=results[2], columns=columns)
    problem.launch(gate_kernel, problem.rows, blocks, rows=rows, columns=columns, d_log_f=results[3])
    return results


@dataclass(frozen=True)
class _Problem:
    """Contiguous inputs of one type, and how they are cut."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_f: Tensor
    plan: Plan
    capability: int

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> _Problem:
        major, minor = torch.cuda.get_device_capability(q.device) if q.is_cuda else (8, 0)
        capability = 10 * major + minor
        dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
        if dtype is torch.bfloat16 and capability < 80:
            dtype = torch.float32  # The chip multiplies none; float32 holds them exactly.
        q, k, v = (value.to(dtype).contiguous() for value in (q, k, v))
        return cls(q, k, v, log_f.contiguous(), plan(capability, q.shape[3], dtype.itemsize), capability)

    @property
    def batch(self) -> int:
        return self.q.shape[0]

    @property
    def steps(self) -> int:
        return self.q.shape[1]

    @property
    def heads(self) -> int:
        return self.q.shape[2]

    @property
    def key_heads(self) -> int:
        return self.k.shape[2]

    @property
    def rows(self) -> int:
        return self.batch * self.heads

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.q.device)

    def prefix(self, blocks: Blocks) -> dict[str, Tensor]:
        """Prefix sums of the gates, and bounds of what is left at the end of each block of keys."""
        count = triton.cdiv(self.steps, blocks.keys)
        block_size = self.empty((self.batch * self.key_heads, count))
        self.launch(size_kernel, block_size.numel(), blocks, k=self.k, size=block_size)
        results = {name: self.empty((self.rows, self.steps)) for name in ("high", "low")}
        results |= {name: self.empty((self.rows, count)) for name in ("held_high", "held_low", "size")}
        self.launch(prefix_kernel, self.rows, blocks, log_f=self.log_f, block_size=block_size, **results)
        return results

    def launch(self, kernel: Any, programs: int, blocks: Blocks, **tensors: Tensor) -> None:
        """Runs `kernel` with those of the sizes that it names."""
        width = self.q.shape[3]
        sizes: dict[str, Any] = {f"{name}_ptr": tensor for name, tensor in tensors.items()}
        sizes |= {"steps": self.steps, "heads": self.heads, "key_heads": self.key_heads, "scale": width**-0.5}
        sizes |= {"blocks": triton.cdiv(self.steps, blocks.keys), "SPAN": span(self.steps, blocks.keys)}
        sizes |= {"WIDTH": width, "LANES": max(16, triton.next_power_of_2(width)), "SEARCH": SEARCH}
        sizes |= {"QUERIES": blocks.queries, "KEYS": blocks.keys}
        sizes |= {"FIRST_QUERIES": self.plan.query.queries, "FIRST_KEYS": self.plan.query.keys}
        sizes["PRECISION"] = precision(self.capability, self.q.dtype.itemsize)
        given = {name: sizes[name] for name in kernel.arg_names}
        with torch.cuda.device_of(self.q):
            kernel[(programs,)](**given, num_warps=blocks.warps, num_stages=blocks.stages, enable_fp_fusion=True)
