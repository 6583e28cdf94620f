"""Event2Vec as a stream program: the network on a window of the last N events, every hop.

The trained network is a function of a whole window: the time of its last event scales all gaps, and attention looks
both ways. So the window is one stage that fires every hop, and its answer equals the network's own on those events.
Between firings the answer stays; before the first it is the bias of the head, as for a window without events.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from models.event2vec.config import Event2VecConfig
from models.event2vec.encoder import encode, mean
from models.event2vec.events import gaps, scale
from neurocompile.program import ProgramSpec, StageSpec, StateSpec, StreamProgram, TensorSpec, Trigger
from runtime.errors import UserError
from runtime.front_ends import Window
from runtime.program import REQUEST

if TYPE_CHECKING:
    from models.event2vec.network import Event2Vec

POOLED = "pooled"
"""The state: mean feature of the last window."""


class WindowStage(nn.Module):
    """Stage `window`: from a window of events, all of which count, to its mean feature."""

    def __init__(self, model: Event2Vec) -> None:
        super().__init__()
        self.config = model.config
        self.embed_net, self.tpe, self.backbone_net = model.embed_net, model.tpe, model.backbone_net

    def forward(self, token: Tensor, time: Tensor, intensity: Tensor | None = None) -> tuple[Tensor]:
        """(N,) tokens, (N,) ticks, (N,) intensities of a network for clusters -> (d,)."""
        place = self.embed_net(points(self.config, token, self.embed_net.embed[0].weight.dtype))
        since = (time - time[:1]).to(place.dtype)
        # Times do not decrease, so the last is the largest.
        tokens = place[None] + self.tpe(gaps(since / since[-1:])[None])
        if intensity is not None:
            tokens = tokens * intensity[:, None]
        features, _ = encode(self.backbone_net, tokens)
        return (mean(features)[0],)


def points(config: Event2VecConfig, token: Tensor, dtype: torch.dtype) -> Tensor:
    """(N,) tokens -> (N, 3) x, y, p in [-1, 1]."""
    x, row = token % config.width, token // config.width
    return scale(config, *(value.to(dtype) for value in (row // config.height, row % config.height, x)))


class Readout(nn.Module):
    """Stage `readout`: the head on the last window's feature."""

    def __init__(self, heads: nn.Linear) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, pooled: Tensor) -> tuple[Tensor]:
        """(d,) -> logits (C,)."""
        return (self.heads(pooled),)


def stream_program(model: Event2Vec, front_end: Window, labels: tuple[str, ...] = ()) -> StreamProgram:
    """The stream program of a trained `Event2Vec`.

    Args:
        model: The network, in evaluation mode.
        front_end: Sensor, window and hop.
        labels: Class names in logit order.

    Returns:
        The program; its modules are the network's own.

    Raises:
        UserError: If window or sensor do not fit it, or one of both is for clusters and the other for single events.
    """
    config = model.config
    check_front_end(config, front_end)
    width = config.d_model
    what = "clusters" if config.intensity else "events"
    if front_end.every > 1:
        what += f" of those that are taken, one of {front_end.every}"
    spec = ProgramSpec(
        family="event2vec",
        front_end=front_end.to_json(),
        items=front_end.items,
        states=(StateSpec(POOLED, "float32", (width,)),),
        stages=(
            StageSpec("window", Trigger(), tuple(item.name for item in front_end.items), writes=(POOLED,)),
            StageSpec(
                "readout",
                Trigger(REQUEST),
                (),
                outputs=(TensorSpec("logits", "float32", (config.num_classes,)),),
                reads=(POOLED,),
            ),
        ),
        labels=labels,
        notes={
            "window": f"the last {front_end.window} {what}, every {front_end.hop}; equal to the network on them",
            "padding": "none: the published network without padding",
        },
    )
    modules = {"window": WindowStage(model), "readout": Readout(model.heads)}
    return StreamProgram(spec, modules, lambda items: offline(model, items))


def check_front_end(config: Event2VecConfig, front_end: Window) -> None:
    """Raises `UserError` unless windows and sensor fit the network, and both are for clusters or both for events."""
    if front_end.intensity != config.intensity:
        kinds = {True: "clusters with intensities", False: "single events"}
        raise UserError(
            f"the network takes {kinds[config.intensity]}, but its front end {kinds[front_end.intensity]}; "
            f"set intensity of the front end to {str(config.intensity).lower()}"
        )
    if front_end.window % config.total_downsampling:
        raise UserError(
            f"a window of {front_end.window} events cannot be halved {len(config.encoders)} times by pooling; "
            f"give a window that is a multiple of {config.total_downsampling}"
        )
    if (config.polarities, config.width, config.height) != (2, front_end.width, front_end.height):
        raise UserError(
            f"the network scales {config.polarities} polarities and {config.width} x {config.height} pixels, but its "
            f"front end has 2 and {front_end.width} x {front_end.height}; give the sensor it was trained with"
        )


def offline(model: Event2Vec, items: Mapping[str, np.ndarray]) -> np.ndarray:
    """The network's own forward in float64 on the last window.

    Args:
        model: The network.
        items: `token`, `time` and where the network takes it `intensity`, (K, N) each.

    Returns:
        (C,) float64 logits.
    """
    double = copy.deepcopy(model).double().eval()
    config = model.config
    p, y, x = np.unravel_index(items["token"][-1:], (config.polarities, config.height, config.width))
    columns = [torch.from_numpy(np.ascontiguousarray(value)) for value in (p, y, x, items["time"][-1:])]
    columns.append(torch.ones_like(columns[0], dtype=torch.bool))
    if config.intensity:
        columns.append(torch.from_numpy(np.ascontiguousarray(items["intensity"][-1:])))
    with torch.inference_mode():
        return double(*columns)[0].numpy()
