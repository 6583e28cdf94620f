"""Event2Vec with a fixed time scale as a stream program: what does not depend on the window is made once per event.

As published, the time of a window's last event scales all gaps, so that a new event changes every token. With a
`time_scale` a token depends on its event and on the seven gaps up to it, wherever a window begins. The front end hands
over blocks of H events, one per hop, and there are three stages:

    tokens      makes tokens and the first layer's queries, keys, values and gates of the H new events, and pushes them
                into rings that hold those of the last N
    attention   the first layer's attention, as far as the H new events change it, see `carried`
    window      the rest of the first layer, and everything after it, on the last N events
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from models.event2vec.carried import MOST_BYTES, AttentionStage, slots
from models.event2vec.causal.temporal import CausalTemporalEmbedding
from models.event2vec.encoder import Encoder, EncoderLayer, encode, mean, pool_pairs
from models.event2vec.events import scaled_gaps
from models.event2vec.stream import POOLED, Readout, check_front_end, points
from neurocompile.ops.forgetting_attention import forgetting_attention
from neurocompile.program import ProgramSpec, StageSpec, StateSpec, StreamProgram, TensorSpec, Trigger
from runtime.errors import UserError
from runtime.front_ends import Window
from runtime.program import REQUEST

if TYPE_CHECKING:
    from models.event2vec.network import Event2Vec

RINGS = ("x", "q", "k", "v", "log_f")


class PastTemporalEmbedding(CausalTemporalEmbedding):
    """The temporal embedding that looks back only, as a function of the gaps alone."""

    def forward(self, gaps: Tensor) -> Tensor:  # type: ignore[override]
        """(B, L) gaps in units of the time scale -> (B, L, d)."""
        return super().forward(gaps)[0]

    def carried(self, gaps: Tensor, histories: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The same where a stream goes on; also returns the new histories, see `CausalTemporalEmbedding`."""
        return super().forward(gaps, histories)


class TokenStage(nn.Module):
    """Stage `tokens`: tokens of a block of events and what the first layer projects them to, into the rings."""

    def __init__(self, model: Event2Vec) -> None:
        super().__init__()
        self.config, self.embed_net, self.tpe = model.config, model.embed_net, model.tpe
        self.attention = first_layer(model.backbone_net).attention.attention

    def forward(self, token: Tensor, time: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Takes a block and the states, returns the new states.

        Args:
            token: (H,) tokens.
            time: (H,) microseconds.
            *rest: (H,) intensities of a network for clusters; time of the last event (1,), number of blocks (1,), three
                histories and five rings.
        """
        weights, states = (rest[:1], rest[1:]) if self.config.intensity else ((), rest)
        last, blocks, *carried = states
        histories, rings = carried[:3], carried[3:]
        dtype = self.embed_net.embed[0].weight.dtype
        times = torch.cat((last, time))
        gap = (times[1:] - times[:-1]).to(dtype) * (1e-3 / cast(float, self.config.time_scale))
        # A stream's first event has no gap before it.
        begun = torch.cat((blocks.clamp(max=1), blocks.new_ones(len(token) - 1))).to(dtype)
        feature, new_histories = self.tpe.carried((gap * begun)[None], [value[None] for value in histories])
        x = self.embed_net(points(self.config, token, dtype)) + feature[0]
        if weights:
            x = x * weights[0][:, None]
        new = (x, *(value[0] for value in self.attention.project(x[None])))
        moved = [torch.cat((ring[len(token) :], value.flatten(1))) for ring, value in zip(rings, new, strict=True)]
        return (time[-1:], blocks + 1, *(value[0] for value in new_histories), *moved)


class RingStage(nn.Module):
    """Stage `window`: from the rings to the mean feature; zeros before the first window is complete.

    Args:
        model: The network.
        attention: Stage `attention`, which made what this one reads.
    """

    def __init__(self, model: Event2Vec, attention: AttentionStage) -> None:
        super().__init__()
        self.config, self.backbone_net, self.blocks = model.config, model.backbone_net, attention.hops
        self.lines = attention.lines

    def forward(self, blocks: Tensor, x: Tensor, ahead: Tensor, *forward: Tensor) -> tuple[Tensor]:
        """From a window's tokens and its first attention to the mean feature.

        Args:
            blocks: (1,) number of blocks so far.
            x: (N, d) tokens.
            ahead: (N, heads (D + 1)) backward direction, each softmax with the logarithm of its sum.
            *forward: Answers kept for this window and later ones (R (R + 1) / 2, H d), or where none are kept the rings
                `q`, `k`, `v`, `log_f` (N, ..).
        """
        heads, keys = self.config.nheads, self.config.key_heads
        backward = ahead.unflatten(-1, (heads, -1))[..., :-1].flatten(1)
        if self.lines is not None:
            look_back = forward[0].index_select(0, self.lines.read(blocks - 1)).reshape(x.shape)
        else:
            q, k, v, log_f = (value[None] for value in forward)
            parts = (q.unflatten(-1, (heads, -1)), *(value.unflatten(-1, (keys, -1)) for value in (k, v)), log_f)
            look_back = forgetting_attention(*parts)[0].flatten(1)
        first = first_layer(self.backbone_net)
        attended = first.attention.attention.join(look_back[None], backward[None])
        features = rest_of(self.backbone_net, first.finish(x[None], attended))
        return (mean(features)[0] * (blocks >= self.blocks).to(x.dtype),)


def first_layer(backbone: nn.Module) -> EncoderLayer:
    """The layer that sees the tokens."""
    return cast(EncoderLayer, encoders(backbone)[0].layers[0])


def encoders(backbone: nn.Module) -> list[Encoder]:
    """The encoders, one or several."""
    return [backbone] if isinstance(backbone, Encoder) else cast(list[Encoder], list(backbone.children()))


def rest_of(backbone: nn.Module, x: Tensor) -> Tensor:
    """(1, N, d) answer of the first layer -> (1, N', d) that of the whole, where everything counts."""
    for number, encoder in enumerate(encoders(backbone)):
        for layer in list(encoder.layers)[int(not number) :]:
            x = layer(x)
        x = encoder.norm(x)
        if not isinstance(backbone, Encoder):
            x, _ = pool_pairs(x)
    return x


def once_program(model: Event2Vec, front_end: Window, labels: tuple[str, ...] = ()) -> StreamProgram:
    """The stream program of a trained `Event2Vec` with a `time_scale`.

    Args:
        model: The network, in evaluation mode.
        front_end: Sensor, window and hop.
        labels: Class names in logit order.

    Returns:
        The program; its front end hands over blocks of a hop, and its modules are the network's own.

    Raises:
        UserError: If window or sensor do not fit the network, or the window is no multiple of the hop.
    """
    config = model.config
    check_front_end(config, front_end)
    size, hop = front_end.window, front_end.hop
    if size % hop or hop < 4:
        raise UserError(
            f"a window of {size} events is no whole number of hops of {hop} events, which a network with a time_scale "
            "needs; set hop to a divisor of the window, at least 4"
        )
    feed = replace(front_end, window=hop, scaled=False)
    keys = config.d_model // config.nheads * config.key_heads
    widths = (config.d_model, config.d_model, keys, keys, config.nheads)
    hops = size // hop
    keep = 4 * slots(hops) * hop * config.d_model <= MOST_BYTES
    rings = [StateSpec(f"ring_{name}", "float32", (size, width)) for name, width in zip(RINGS, widths, strict=True)]
    histories = [StateSpec(f"history{k}", "float32", shape) for k, shape in enumerate(model.tpe.histories)]
    states = (StateSpec("last", "int64", (1,)), StateSpec("blocks", "int64", (1,)), *histories, *rings)
    names = tuple(state.name for state in states)
    ahead = StateSpec("ahead", "float32", (size, config.d_model + config.nheads))
    kept = (StateSpec("kept", "float32", (slots(hops), hop * config.d_model)),) if keep else ()
    projected = tuple(ring.name for ring in rings[1:])
    carried = tuple(state.name for state in (ahead, *kept))
    looked_back = carried[1:] or projected
    answer = (TensorSpec("logits", "float32", (config.num_classes,)),)
    spec = ProgramSpec(
        family="event2vec",
        front_end=feed.to_json(),
        items=feed.items,
        states=(*states, ahead, *kept, StateSpec(POOLED, "float32", (config.d_model,))),
        stages=(
            StageSpec("tokens", Trigger(), tuple(item.name for item in feed.items), reads=names, writes=names),
            StageSpec("attention", Trigger(), (), reads=("blocks", *projected, *carried), writes=carried),
            StageSpec(
                "window", Trigger(), (), reads=("blocks", rings[0].name, ahead.name, *looked_back), writes=(POOLED,)
            ),
            StageSpec("readout", Trigger(REQUEST), (), outputs=answer, reads=(POOLED,)),
        ),
        first_readout=hops,
        labels=labels,
        notes={
            "window": f"the last {size} events, every {hop}; equal to the network on them",
            "once": "tokens and the first layer's projections are made once per event and kept in rings",
            "carried": f"of the first layer's attention: {'both directions' if keep else 'the backward direction'}",
        },
    )
    attention = AttentionStage(first_layer(model.backbone_net).attention.attention, hops, keep=keep)
    modules = {
        "tokens": TokenStage(model),
        "attention": attention,
        "window": RingStage(model, attention),
        "readout": Readout(model.heads),
    }
    return StreamProgram(spec, modules, lambda items: offline(model, size, items))


def offline(model: Event2Vec, size: int, items: Mapping[str, np.ndarray]) -> np.ndarray:
    """The network's own layers in float64 on the last window of a whole stream.

    Args:
        model: The network.
        size: Events N of a window.
        items: `token`, `time` and where the network takes it `intensity`, (K, H) each: the stream from its beginning.

    Returns:
        (C,) float64 logits.
    """
    double = copy.deepcopy(model).double().eval()
    token, time = (torch.from_numpy(np.ascontiguousarray(items[name]).reshape(-1)) for name in ("token", "time"))
    with torch.inference_mode():
        feature = double.tpe(scaled_gaps(cast(float, model.config.time_scale), time, None, torch.float64)[None])[0]
        x = double.embed_net(points(model.config, token, torch.float64)) + feature
        if model.config.intensity:
            x = x * torch.from_numpy(np.ascontiguousarray(items["intensity"], np.float64).reshape(-1, 1))
        features, _ = encode(double.backbone_net, x[None, -size:])
        return cast(np.ndarray, double.heads(mean(features))[0].numpy())
