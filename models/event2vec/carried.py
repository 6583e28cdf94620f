"""What the first layer's attention takes over from hop to hop, where a token does not depend on the window.

Backward, an event looks at those after it. With every hop H keys join its softmax and none leaves, so that the softmax
of each of the N events is carried on: H keys for N queries.

Forward, an event looks at those before it back to the beginning of the window, and with every hop the H oldest keys
leave, which a sum cannot undo. But where windows will begin is known: an event that arrives meets its keys from the
newest to the oldest, and at each of the R = N / H places where a window begins, what the softmax comes to is kept for
the hop that will ask for it: N keys for H queries.

Both are the attention of the whole window, to rounding. Kept answers wait in delay lines: those for the hop L - 1 hops
ahead in the line of L slots, of which hop t writes slot t mod L and reads slot t + 1 mod L, the oldest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.event2vec.attention import ForgettingAttention
from neurocompile.ops.forgetting_attention_suffixes import NOTHING, forgetting_attention_suffixes
from neurocompile.ops.replace_rows import replace_rows

MOST_BYTES = 64 << 20
"""Of the answers that are kept for later windows. Where a window has so many hops that it takes more, the forward
direction is computed anew in every window."""


def slots(hops: int) -> int:
    """Places of all R delay lines together."""
    return hops * (hops + 1) // 2


class DelayLines(nn.Module):
    """Which slots of the lines a hop writes and reads; the slots of all R lines follow one another, the shortest first.

    Args:
        hops: R, hops in a window.
    """

    lengths: Tensor
    begins: Tensor

    def __init__(self, hops: int) -> None:
        super().__init__()
        lengths = torch.arange(1, hops + 1)
        self.register_buffer("lengths", lengths, persistent=False)
        self.register_buffer("begins", torch.tensor([slots(hop) for hop in range(hops)]), persistent=False)

    def written(self, hops: Tensor) -> Tensor:
        """(1,) hops before this one -> (R,) slots for what this hop keeps, that for the next hops first."""
        return self.begins + hops.clamp(min=0) % self.lengths

    def read(self, hops: Tensor) -> Tensor:
        """(1,) hops before this one -> (R,) slots of the window that ends now, its oldest block first."""
        return (self.begins + (hops.clamp(min=0) + 1) % self.lengths).flip(0)


class AttentionStage(nn.Module):
    """Stage `attention`: takes the newest block of the rings into both directions of the first layer's attention.

    Args:
        attention: The first layer's.
        hops: R, hops in a window.
        keep: Whether the forward direction is kept for later windows.
    """

    nothing: Tensor

    def __init__(self, attention: ForgettingAttention, hops: int, *, keep: bool) -> None:
        super().__init__()
        self.heads, self.key_heads, self.hops = attention.heads, attention.key_heads, hops
        self.lines = DelayLines(hops) if keep else None
        nothing = torch.zeros(attention.q_proj.out_features // self.heads + 1)
        nothing[-1] = NOTHING
        self.register_buffer("nothing", nothing, persistent=False)

    def forward(self, blocks: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
        """Takes rings and states, returns the new states.

        Args:
            blocks: (1,) number of blocks so far.
            *carried: Rings `q`, `k`, `v`, `log_f` (N, ..), softmaxes `ahead` (N, heads (D + 1)) and perhaps answers
                `kept` (R (R + 1) / 2, H d).
        """
        q, k, v, log_f = (ring[None] for ring in carried[:4])
        q = q.unflatten(-1, (self.heads, -1))
        k, v = (ring.unflatten(-1, (self.key_heads, -1)) for ring in (k, v))
        hop = q.shape[1] // self.hops
        unknown = self.nothing.to(q.dtype).expand(1, hop, self.heads, -1)
        before = torch.cat((carried[4][None, hop:].unflatten(-1, (self.heads, -1)), unknown), 1)
        # Looking ahead is looking back on reversed sequences, where the newest keys come first.
        ahead = forgetting_attention_suffixes(
            q.flip(1), k[:, -hop:].flip(1), v[:, -hop:].flip(1), log_f.flip(1), before.flip(1), hop
        )
        ahead = ahead[0, 0].flip(0).flatten(1)
        if self.lines is None:
            return (ahead,)
        answers = forgetting_attention_suffixes(q[:, -hop:], k, v, log_f, unknown, hop)[0, ..., :-1].flatten(1)
        return ahead, replace_rows(carried[5], self.lines.written(blocks - 1), answers)
