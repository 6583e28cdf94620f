"""Event2Vec once more, in numpy float64 and one sample at a time, from a description of the published program alone.

It shares nothing with `models.event2vec`: attention is a full matrix per head and direction, convolutions are loops.
"""

from __future__ import annotations

import numpy as np


def norm(x, weight, bias):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def convolution(x, weight):
    """(L, C) and (C', C / groups, 3) -> (L, C'), zeros beyond both ends."""
    padded, out = np.pad(x, ((1, 1), (0, 0))), np.zeros((len(x), len(weight)))
    per_output = len(weight) // x.shape[1]
    for channel, kernel in enumerate(weight[:, 0]):
        read = padded[:, channel // per_output]
        out[:, channel] = sum(kernel[tap] * read[tap : tap + len(x)] for tap in range(3))
    return out


class Numpy:
    """The network of some published weights.

    Args:
        weights: By name, without prefix.
        sensor: P, H and W.
        heads: Query heads.
        encoders: Layers of each encoder, or `None` for one without pooling.
    """

    def __init__(self, weights, sensor, heads, encoders=None):
        self.weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
        self.sensor, self.heads, self.encoders = sensor, heads, encoders

    def __getitem__(self, name):
        return self.weights[name]

    def normed(self, name, x):
        return norm(x, self[f"{name}.weight"], self[f"{name}.bias"])

    def __call__(self, p, y, x, t, mask, intensity=None):
        """(L,) each -> (C,) logits."""
        columns = [np.rint(np.asarray(value, np.float64)) for value in (p, y, x)]
        _, height, width = self.sensor
        counts = mask & (columns[1] >= 0) & (columns[1] < height) & (columns[2] >= 0) & (columns[2] < width)
        p, y, x = (value * 2 / (size - 1) - 1 for value, size in zip(columns, self.sensor, strict=True))
        t = (t - t[0]).astype(np.float64)
        t = t / t.max()
        gaps = np.zeros_like(t)
        gaps[1:] = (t[1:] - t[:-1]) * counts[1:] * counts[:-1]
        weight = counts * (1.0 if intensity is None else intensity)
        tokens = (self.place(np.stack([x, y, p], 1) * counts[:, None]) + self.time(gaps)) * weight[:, None]
        features, counts = self.encode(tokens, counts)
        pooled = (features * counts[:, None]).sum(0) / (counts.sum() + 1e-5)
        return self["heads.weight"] @ pooled + self["heads.bias"]

    def place(self, x):
        for number in (0, 3, 6):
            x = self.normed(f"embed_net.embed.{number + 1}", x @ self[f"embed_net.embed.{number}.weight"].T)
            x = np.maximum(x, 0) if number < 6 else x
        return x

    def time(self, gaps):
        x = gaps[:, None]
        for number in (0, 5, 10):
            x = self.normed(f"tpe.conv.{number + 2}", convolution(x, self[f"tpe.conv.{number}.weight"]))
            x = np.maximum(x, 0) if number < 10 else x
        return x

    def encode(self, x, counts):
        if self.encoders is None:
            layers = {name.split(".")[2] for name in self.weights if name.startswith("backbone_net.layers.")}
            return self.encoder("backbone_net", len(layers), x, counts), counts
        for number, layers in enumerate(self.encoders):
            x = self.encoder(f"backbone_net.{number}", layers, x, counts)
            pairs = counts.reshape(-1, 2).sum(1)
            x = (x * counts[:, None]).reshape(len(pairs), 2, -1).sum(1) / (pairs + 1e-5)[:, None]
            counts = pairs > 0
        return x, counts

    def encoder(self, name, layers, x, counts):
        for number in range(layers):
            layer = f"{name}.layers.{number}"
            a = self.normed(f"{layer}.norm1", x + self.attention(f"{layer}.attention.attention", x, counts))
            inner = np.maximum(a @ self[f"{layer}.ffn.linear1.weight"].T, 0)
            x = self.normed(f"{layer}.norm2", a + inner @ self[f"{layer}.ffn.linear2.weight"].T)
        return self.normed(f"{name}.norm", x)

    def attention(self, name, x, counts):
        """Scores s_ij = q_i k_j / sqrt(d_h) + the gates after the nearer end of (i, j), up to and with that of i."""
        heads, key_heads = self.heads, max(self.heads // 2, 1)
        width = x.shape[1] // heads
        places, out = np.flatnonzero(counts), np.zeros((len(x), 2 * x.shape[1]))
        x = x[places]
        q, k, v = (x @ self[f"{name}.{kind}_proj.weight"].T for kind in "qkv")
        q = self.head_norm(q, heads, self[f"{name}.q_norm.weight"])
        k = self.head_norm(k, key_heads, self[f"{name}.k_norm.weight"])
        gates = -np.logaddexp(0, -(x @ self[f"{name}.f_proj.weight"].T + self[f"{name}.f_proj.bias"]))
        i, j = np.indices((len(x), len(x)))
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            shared = head // (heads // key_heads)
            read = slice(shared * width, (shared + 1) * width)
            after = np.concatenate([[0.0], gates[:, head].cumsum()])
            decay = {"forward": after[i + 1] - after[j + 1], "backward": after[j] - after[i]}
            seen = {"forward": j <= i, "backward": j >= i}
            for half, direction in enumerate(("forward", "backward")):
                s = np.where(seen[direction], q[:, own] @ k[:, read].T / np.sqrt(width) + decay[direction], -np.inf)
                e = np.exp(s - s.max(1, keepdims=True)) if len(s) else s
                filled = slice(half * heads * width + head * width, half * heads * width + (head + 1) * width)
                out[places, filled] = e / e.sum(1, keepdims=True) @ v[:, read]
        return out @ self[f"{name}.o_proj.weight"].T

    @staticmethod
    def head_norm(u, heads, weight):
        split = u.reshape(len(u), heads, -1)
        return (split / np.sqrt((split**2).mean(-1, keepdims=True) + 1e-5)).reshape(u.shape) * weight
