"""`forgetting_attention` on a stream: positions arrive one by one or in chunks, and a ring of the last M is carried.

    o_i = sum_{i - M < j <= i} softmax_j(q_i . k_j / sqrt(D) + sum_{r = j+1 .. i} log_f_r) v_j

Work and memory of a position do not grow with the stream. It is the op restricted to M positions, whatever the chunks,
and the op itself where what has left the ring weighs nothing. How much that can be is bounded at every position by

    sum_{j <= i - M} exp(s_ij) <= exp(|q_i| max_{j <= i - M} |k_j| / sqrt(D)) sum_{j <= i - M} exp(C_i - C_j)

whose second factor is carried as its logarithm: it decays with every gate and gains what leaves the ring.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neurocompile.ops.forgetting_attention.blocked import sum_dtype

PIECE = 128
"""Positions that meet the ring at once; a longer chunk is cut."""


class Memory:
    """The last M keys and values of B streams, and the gates since each; changed in place by `chunk` and `step`.

    Args:
        like: (B, T, K, D) keys, for the streams, their sizes, type and device; T is of no concern.
        heads: Query heads H.
        size: M, at least 1.
    """

    def __init__(self, like: Tensor, heads: int, size: int) -> None:
        batch, _, keys, width = like.shape
        if size < 1 or heads % keys:
            raise ValueError(f"Memory: {size} positions for {heads} query heads and {keys} key heads")
        self.size, self.heads = size, heads
        options = {"dtype": sum_dtype(like), "device": like.device}
        self._ring = torch.zeros(2, batch, keys, size, width, **options)
        # Sums of log gates are float64 and begin at each position, so that they neither grow nor lose single gates.
        self._passed = torch.full((batch, heads, size), -torch.inf, dtype=torch.float64, device=like.device)
        self._gone = torch.full((batch, heads), -torch.inf, dtype=torch.float64, device=like.device)
        self._gone_size = torch.zeros(batch, keys, **options)
        self._place = 0

    def chunk(self, q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> tuple[Tensor, Tensor]:
        """Attends from the next N positions and takes them in; without autograd.

        Args:
            q: (B, N, H, D) queries.
            k: (B, N, K, D) keys.
            v: (B, N, K, D) values.
            log_f: (B, N, H) natural logarithm of the gates, finite.

        Returns:
            (B, N, H, D) result, and (B, N, H) upper bound of the share of the softmax over everything that lies outside
            the ring; the op's own result is within twice that share of the largest value.
        """
        self._check(q, k, v, log_f)
        o, bound = torch.empty_like(q, dtype=self._ring.dtype), torch.empty_like(log_f, dtype=self._ring.dtype)
        with torch.no_grad():
            for begin in range(0, q.shape[1], min(PIECE, self.size)):
                piece = slice(begin, begin + min(PIECE, self.size))
                o[:, piece], bound[:, piece] = self._attend(q[:, piece], k[:, piece], v[:, piece], log_f[:, piece])
        return o, bound

    def step(self, q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> tuple[Tensor, Tensor]:
        """`chunk` of one position: (B, H, D), (B, K, D) twice, (B, H) -> (B, H, D) and (B, H)."""
        o, bound = self.chunk(q[:, None], k[:, None], v[:, None], log_f[:, None])
        return o[:, 0], bound[:, 0]

    def copy(self) -> Memory:
        """The same state in memory of its own."""
        other = Memory.__new__(Memory)
        other.__dict__.update({n: v.clone() if isinstance(v, Tensor) else v for n, v in self.__dict__.items()})
        return other

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> tuple[Tensor, Tensor]:
        dtype, steps = self._ring.dtype, q.shape[1]
        q, k, v = (value.to(dtype).transpose(1, 2) for value in (q, k, v))
        keys = k.shape[1]
        q = (q / q.shape[-1] ** 0.5).unflatten(1, (keys, -1))
        within = log_f.double().cumsum(1).transpose(1, 2)
        step = torch.arange(steps, device=q.device)

        # Position i takes the place of the slot whose turn is i, which is the oldest then.
        turn = (torch.arange(self.size, device=q.device) - self._place) % self.size
        gone = turn <= step[:, None]
        decay = self._passed[:, :, None, :] + within[..., None]
        past = (q @ self._ring[0][:, :, None].transpose(-1, -2)).flatten(1, 2) + decay.to(dtype)
        own = (q @ k[:, :, None].transpose(-1, -2)).flatten(1, 2)
        own = own + (within[..., None] - within[:, :, None, :]).to(dtype)
        s = torch.cat((past.masked_fill(gone, -torch.inf), own.masked_fill(step > step[:, None], -torch.inf)), -1)
        total = s.logsumexp(-1)
        p = (s - total[..., None]).exp().unflatten(1, (keys, -1))
        o = p[..., : self.size] @ self._ring[1][:, :, None] + p[..., self.size :] @ v[:, :, None]

        lost = torch.logaddexp(self._gone[..., None] + within, decay.masked_fill(~gone, -torch.inf).logsumexp(-1))
        norms = self._ring[0].norm(dim=-1)[:, :, None].masked_fill(~gone, 0)
        longest = torch.maximum(self._gone_size[..., None], norms.amax(-1))
        reach = (q.norm(dim=-1) * longest[:, :, None]).flatten(1, 2)
        bound = (reach + lost.to(dtype) - total).clamp(max=0).exp()

        slots = (self._place + step) % self.size
        self._ring[0][:, :, slots], self._ring[1][:, :, slots] = k, v
        self._passed += within[..., -1:]
        self._passed[..., slots] = within[..., -1:] - within
        self._gone, self._gone_size = lost[..., -1].clone(), longest[..., -1].clone()
        self._place = (self._place + steps) % self.size
        return o.flatten(1, 2).transpose(1, 2), bound.transpose(1, 2)

    def _check(self, q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> None:
        _, batch, keys, _, width = self._ring.shape
        steps = q.shape[1] if q.dim() > 1 else 0
        shapes = [(batch, steps, self.heads, width), *[(batch, steps, keys, width)] * 2, (batch, steps, self.heads)]
        for name, value, shape in zip(("q", "k", "v", "log_f"), (q, k, v, log_f), shapes, strict=True):
            if value.shape != shape:
                raise ValueError(f"Memory: {name} has shape {tuple(value.shape)}, expected {shape}")
