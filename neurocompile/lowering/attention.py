"""The statement for attention."""

from __future__ import annotations

from dataclasses import dataclass

from neurocompile.lowering.access import Access


@dataclass(frozen=True)
class Attention:
    """Softmax attention that decays by a gate per step, over suffixes of the keys.

    The last Q of T positions have queries, the first M have keys. With `known` absent, Q = M = T and

        out_i = Σ_{j <= i} softmax_j(q_i · k_j / √D + Σ_{r = j+1 .. i} log_f_r) v_j,

    see the op `forgetting_attention`. With it, answer r = 0 .. M / C - 1 has the keys rC <= j <= i, and one more whose
    score is the last number of `known` and whose value the others are; the logarithm of the sum of exponentials follows
    the channels, see the op `forgetting_attention_suffixes`. Keys whose weights together are at most 2^-24 of the
    running sum may be left out.

    Attributes:
        out: Index map over (T, H, D), or (M / C, Q, H, D + 1).
        q: Index map over (Q, H, D).
        k: Index map over (M, K, D); query head h reads key head h // (H / K).
        v: The same.
        log_f: Index map over (T, H).
        known: Index map over (Q, H, D + 1), or `None`.
        steps: T.
        queries: Q.
        keys: M.
        cut: C, a divisor of M.
        heads: H.
        key_heads: K.
        width: D.
    """

    out: Access
    q: Access
    k: Access
    v: Access
    log_f: Access
    known: Access | None
    steps: int
    queries: int
    keys: int
    cut: int
    heads: int
    key_heads: int
    width: int

    @property
    def operands(self) -> dict[str, Access]:
        """What is read, by name."""
        found = {name: getattr(self, name) for name in ("q", "k", "v", "log_f")}
        return found | ({"known": self.known} if self.known else {})

    @property
    def boxes(self) -> dict[str, tuple[int, ...]]:
        """The box of every index map."""
        queries, keys = (self.queries, self.heads, self.width), (self.keys, self.key_heads, self.width)
        packed = (self.queries, self.heads, self.width + 1)
        out = (self.keys // self.cut, *packed) if self.known else queries
        return {"q": queries, "k": keys, "v": keys, "log_f": (self.steps, self.heads), "known": packed, "out": out}

    @property
    def multiply_adds(self) -> int:
        """Of all pairs that look back; leaving out keys makes them fewer."""
        behind = self.steps - self.keys
        hidden = self.queries - behind - 1
        pairs = self.queries * self.keys - (hidden * (hidden + 1) // 2 if hidden > 0 else 0)
        return 2 * pairs * self.heads * self.width
