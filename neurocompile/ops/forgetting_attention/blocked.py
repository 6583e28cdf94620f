"""`forgetting_attention` in plain torch, block by block: memory grows with T, never with T^2.

A block of queries meets the keys in blocks, from its own backwards, with a running maximum and sum. Decay makes what
lies further back matter less: a head leaves the loop as soon as all keys that remain weigh together less than half a
unit in the last place of its running sums, by the bound

    sum_{j < n} exp(s_ij) <= n exp(|q_i| max_{j < n} |k_j| / sqrt(D) + C_i + max_{j < n} (-C_j))

so that an output moves by at most 2 u max |v| (u = 2^-24 in float32, 2^-53 in float64). The prefix sums
C_i = sum_{r <= i} log_f_r and their differences within a block are float64; between blocks both sides are taken
relative to the queries' first position, so that only what decays much is rounded much. Rows of `Lanes` are pairs of
batch and query head.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

QUERIES = 128
KEYS = 128
PRECISION = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}


def sum_dtype(*inputs: Tensor) -> torch.dtype:
    """The type in which sums are accumulated."""
    return torch.float64 if any(value.dtype == torch.float64 for value in inputs) else torch.float32


@dataclass(frozen=True)
class Lanes:
    """The inputs as (rows, T, ..), one row per batch and query head.

    Attributes:
        q: (B H, T, D) queries over sqrt(D).
        k: (B K, T, D) keys.
        v: (B K, T, D) values.
        row: (B H,) the key row of a query row.
        passed: (B H, T) float64 inclusive prefix sums C of `log_f`.
        q_size: (B H, T) norm of `q`.
        k_size: (B K, T) largest norm of a key up to here.
        held: (B H, T) float64 largest -C up to here.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    row: Tensor
    passed: Tensor
    q_size: Tensor
    k_size: Tensor
    held: Tensor

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Lanes:
        """Widens and reorders the op's inputs."""
        dtype = sum_dtype(q, k, v, log_f)
        batch, _, heads, width = q.shape
        keys = k.shape[2]
        q, k, v = (_rows(value.to(dtype)) for value in (q, k, v))
        q = q / width**0.5
        passed = _rows(log_f.double()).cumsum(1)
        row = torch.arange(batch * keys, device=q.device).repeat_interleave(heads // keys)
        k_size = k.norm(dim=-1).cummax(1).values
        return cls(q, k, v, row, passed, q.norm(dim=-1), k_size, (-passed).cummax(1).values)

    def scores(self, rows: Tensor, queries: slice, keys: slice) -> Tensor:
        """(R, M, N) scores of some rows; `keys` are `queries` themselves, where later ones have none, or lie before."""
        here, there = self.passed[rows, queries], self.passed[rows, keys]
        own = keys.start >= queries.start
        if not own:
            begin = self.passed[rows, queries.start, None]
            here, there = ((value - begin).to(self.q.dtype) for value in (here, there))
        decay = (here[:, :, None] - there[:, None, :]).to(self.q.dtype)
        s = torch.baddbmm(decay, self.q[rows, queries], self.k[self.row[rows], keys].transpose(1, 2))
        if own:
            later = torch.ones(s.shape[1:], dtype=torch.bool, device=s.device).triu(1)
            s.masked_fill_(later, -torch.inf)
        return s

    def weight_left(self, rows: Tensor, queries: slice, keys: int) -> Tensor:
        """(R, M) upper bound of the logarithm of what the first `keys` keys weigh together."""
        decay = self.passed[rows, queries] + self.held[rows, keys - 1, None]
        bound = self.q_size[rows, queries] * self.k_size[self.row[rows], keys - 1, None]
        return bound + decay.to(bound.dtype) + log(keys)

    def value(self, rows: Tensor, keys: slice) -> Tensor:
        """(R, N, D) values that some rows read."""
        return self.v[self.row[rows], keys]


def forward(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> tuple[Tensor, Tensor]:
    """The op, and what its adjoint needs.

    Args:
        q: (B, T, H, D).
        k: (B, T, K, D).
        v: (B, T, K, D).
        log_f: (B, T, H).

    Returns:
        (B, T, H, D) result and (B H, T) logarithm of the sum of every softmax.
    """
    lanes = Lanes.of(q, k, v, log_f)
    o, total = torch.empty_like(lanes.q), torch.empty_like(lanes.q_size)
    least = log(PRECISION[o.dtype])
    for queries in _blocks(q.shape[1], QUERIES):
        rows = torch.arange(len(lanes.q), device=q.device)
        top, mass, mean = _first(lanes, rows, queries)
        for end in range(queries.start, 0, -KEYS):
            matters = (lanes.weight_left(rows, queries, end) > top + mass.log() + least).any(1)
            if not matters.all():
                o[rows[~matters], queries] = (mean / mass[..., None])[~matters]
                total[rows[~matters], queries] = (top + mass.log())[~matters]
                rows, top, mass, mean = (value[matters] for value in (rows, top, mass, mean))
                if not len(rows):
                    break
            keys = slice(max(0, end - KEYS), end)
            s = lanes.scores(rows, queries, keys)
            new = torch.maximum(top, s.amax(-1))
            p = s.sub_(new[..., None]).exp_()
            shrink = (top - new).exp_()
            mass = mass * shrink + p.sum(-1)
            mean = torch.baddbmm(mean * shrink[..., None], p, lanes.value(rows, keys))
            top = new
        o[rows, queries] = mean / mass[..., None]
        total[rows, queries] = top + mass.log()
    return _columns(o, len(q)), total


def gradients(
    q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, o: Tensor, total: Tensor, d_o: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The adjoint, from recomputed scores.

    Args:
        q: (B, T, H, D).
        k: (B, T, K, D).
        v: (B, T, K, D).
        log_f: (B, T, H).
        o: Result of `forward`.
        total: Second result of `forward`.
        d_o: (B, T, H, D) gradient by `o`.

    Returns:
        Gradients by `q, k, v, log_f`, in their types.
    """
    lanes = Lanes.of(q, k, v, log_f)
    d_o = _rows(d_o.to(lanes.q.dtype))
    share = (d_o * _rows(o)).sum(-1)
    d_q, d_k, d_v = (torch.zeros_like(lanes.q) for _ in range(3))
    # How much every score of a key's column grows: the gradient by -C. By +C, along rows, a softmax has none.
    d_held = torch.zeros_like(lanes.passed)
    least = log(PRECISION[lanes.q.dtype])
    for queries in _blocks(q.shape[1], QUERIES):
        rows = torch.arange(len(lanes.q), device=q.device)
        ends = [queries.stop, *range(queries.start, 0, -KEYS)]
        for end in ends:
            if end <= queries.start:
                rows = rows[(lanes.weight_left(rows, queries, end) > total[rows, queries] + least).any(1)]
                if not len(rows):
                    break
            keys = slice(queries.start if end == queries.stop else max(0, end - KEYS), end)
            p = lanes.scores(rows, queries, keys).sub_(total[rows, queries, None]).exp_()
            from_o = d_o[rows, queries]
            d_v[rows, keys] += p.transpose(1, 2) @ from_o
            d_s = p.mul_(torch.baddbmm(-share[rows, queries, None], from_o, lanes.value(rows, keys).transpose(1, 2)))
            d_q[rows, queries] += d_s @ lanes.k[lanes.row[rows], keys]
            d_k[rows, keys] += d_s.transpose(1, 2) @ lanes.q[rows, queries]
            d_held[rows, keys] += d_s.sum(1)
    d_log_f = -d_held.flip(1).cumsum(1).flip(1)
    batch, heads, width = len(q), q.shape[2], q.shape[3]
    d_q, d_k, d_v = (_columns(value, batch) for value in (d_q / width**0.5, d_k, d_v))
    grouped = (*k.shape[:3], heads // k.shape[2], width)
    d_k, d_v = (value.reshape(grouped).sum(3) for value in (d_k, d_v))
    d_log_f = _columns(d_log_f, batch)
    return d_q.to(q.dtype), d_k.to(k.dtype), d_v.to(v.dtype), d_log_f.to(log_f.dtype)


def _first(lanes: Lanes, rows: Tensor, queries: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Maximum, sum and weighted values over the queries' own block."""
    s = lanes.scores(rows, queries, queries)
    top = s.amax(-1)
    p = s.sub_(top[..., None]).exp_()
    return top, p.sum(-1), p @ lanes.value(rows, queries)


def _blocks(steps: int, size: int) -> list[slice]:
    return [slice(begin, min(begin + size, steps)) for begin in range(0, steps, size)]


def _rows(value: Tensor) -> Tensor:
    """(B, T, H, ..) -> (B H, T, ..)."""
    return value.transpose(1, 2).flatten(0, 1).contiguous()


def _columns(value: Tensor, batch: int) -> Tensor:
    """(B H, T, ..) -> (B, T, H, ..), in memory of its own."""
    return value.unflatten(0, (batch, len(value) // max(batch, 1))).transpose(1, 2).contiguous()
