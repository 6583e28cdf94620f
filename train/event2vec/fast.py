"""Event2Vec's forward pass for training on a CPU, in about half the time: its attention by torch's fused kernel.

A score of `forgetting_attention` is q_i . k_j / sqrt(D) + C_i - C_j with prefix sums C of the log gates. C_i is the
same for all keys of a query, so softmax does not see it, and -C_j joins the product as one further channel of the keys,
whose query is sqrt(D):

    o_i = sum_{j <= i} softmax_j([q_i, sqrt(D)] . [k_j, -C_j] / sqrt(D)) v_j

which is causal attention without a bias, and torch's kernel has forward and backward of that. The result is that of
`Event2Vec.forward` up to rounding: C is a float32 there, whose steps grow with it, hence the bound on the length.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from models.event2vec import Event2Vec
from models.event2vec.attention import ForgettingAttention
from models.event2vec.encoder import Encoder, mean, pool_pairs
from models.event2vec.events import prepare
from train.event2vec.batch import EventBatch

LONGEST = 1024
"""Positions up to which prefix sums are precise enough in float32."""


def applies(batch: EventBatch) -> bool:
    """Whether `forward` takes a batch: on a CPU, not too long, and every position holds an event.

    Nor under autocast, which would round prefix sums to half precision with the keys that they join.
    """
    if batch.mask.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    return batch.mask.shape[1] <= LONGEST and bool(batch.mask.all())


def forward(model: Event2Vec, batch: EventBatch) -> Tensor:
    """(B, C) logits as `model(*batch.inputs)` gives them; the batch must satisfy `applies`.

    Raises:
        UserError: As `Event2Vec.forward`.
    """
    inputs = prepare(model.config, batch.p, batch.y, batch.x, batch.t, batch.mask, model.heads.weight.dtype)
    tokens = model.tokens(inputs, batch.intensity)
    if not inputs.mask.all():
        # Events outside the sensor are packed away by the network itself.
        features, counted = model.encode(tokens, inputs.mask)
        return model.heads(mean(features, counted))
    backbone: nn.Module = model.backbone_net
    if isinstance(backbone, Encoder):
        return model.heads(mean(_encoder(backbone, tokens)))
    for encoder in backbone.children():
        tokens, _ = pool_pairs(_encoder(cast(Encoder, encoder), tokens))
    return model.heads(mean(tokens))


def _encoder(encoder: Encoder, x: Tensor) -> Tensor:
    for layer in encoder.layers:
        x = layer.finish(x, attend(layer.attention.attention, x))
    return encoder.norm(x)


def attend(attention: ForgettingAttention, x: Tensor) -> Tensor:
    """(B, L, d) -> (B, L, d), what `attention(x)` gives."""
    q, k, v, log_f = attention.project(x)
    both = (torch.cat((value, value.flip(1))).transpose(1, 2) for value in (q, k, v, log_f[..., None]))
    q, k, v, log_f = both
    heads, keys, width = q.shape[1], k.shape[1], q.shape[-1]
    k, v = (value.repeat_interleave(heads // keys, 1) for value in (k, v))
    passed = log_f.cumsum(2)
    q = torch.cat((q, torch.full_like(passed, width**0.5)), -1)
    # The fused kernel wants values as wide as keys.
    attended = scaled_dot_product_attention(
        q, torch.cat((k, -passed), -1), pad(v, (0, 1)), is_causal=True, scale=width**-0.5
    )
    forward_, backward = attended[..., :-1].transpose(1, 2).flatten(2).chunk(2)
    return attention.o_proj(torch.cat((forward_, backward.flip(1)), -1))
