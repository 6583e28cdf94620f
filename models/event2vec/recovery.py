"""Self-supervised training of Event2Vec: some events lose their coordinates, and the network recovers them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.event2vec.config import Event2VecConfig
from models.event2vec.events import Inputs, prepare, scale
from models.event2vec.network import Backbone
from neurocompile.program import StreamProgram
from runtime.errors import UserError
from runtime.front_ends import Window

NEAR = 3
"""Pixels within which a recovered event counts as a neighbour."""


class Recovered(NamedTuple):
    """What the network says about hidden events, and what they were; n events in order of sample and position.

    Attributes:
        guess: (n, 3) p, y, x in [-1, 1].
        truth: (n, 3) the same of the events.
    """

    guess: Tensor
    truth: Tensor


class Event2VecRecovery(Backbone):
    """The self-supervised network. What time says about a hidden event stays visible.

    Args:
        config: The configuration, with a `mask_ratio` above 0.

    Attributes:
        mask_token: (1, 1, d) what stands for hidden coordinates.
        heads: Map from a recovered coordinate embedding to p, y, x.
    """

    def __init__(self, config: Event2VecConfig) -> None:
        super().__init__(config)
        width = config.d_model
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.heads = nn.Sequential(
            nn.Linear(width, width // 2, bias=False),
            nn.LayerNorm(width // 2),
            nn.ReLU(),
            nn.Linear(width // 2, width // 4, bias=False),
            nn.LayerNorm(width // 4),
            nn.ReLU(),
            nn.Linear(width // 4, 3, bias=False),
        )

    def forward(
        self,
        p: Tensor,
        y: Tensor,
        x: Tensor,
        t: Tensor,
        mask: Tensor,
        intensity: Tensor | None = None,
        uniform: Tensor | None = None,
    ) -> Recovered:
        """Hides events and recovers them.

        Args:
            p: See `Event2Vec.forward`, as for the next five.
            y: Rows.
            x: Columns.
            t: Times.
            mask: False on padding.
            intensity: Weights.
            uniform: (B, L) numbers in [0, 1), drawn where not given; an event is hidden where its number is below
                `mask_ratio`.

        Returns:
            Guesses and truth of the hidden events.

        Raises:
            UserError: As `Event2Vec.forward`.
        """
        dtype = self.mask_token.dtype
        inputs = prepare(self.config, p, y, x, t, mask, dtype)
        if uniform is None:
            uniform = torch.rand(inputs.mask.shape, device=inputs.mask.device)
        hidden = (uniform < self.config.mask_ratio) & inputs.mask
        weight = torch.ones_like(inputs.gaps) if intensity is None else intensity.to(dtype)
        time = self.tpe(inputs.gaps) * inputs.mask[..., None]
        features, _ = self.encode(self.hide(inputs, time, weight, hidden), inputs.mask)
        embedding = features[hidden] / weight[hidden][:, None] - time[hidden]
        truth = scale(self.config, *(value.to(dtype).round() for value in (p, y, x)))[hidden]
        return Recovered(self.heads(embedding).tanh(), truth.flip(-1))

    def stream_program(self, front_end: Window, labels: tuple[str, ...] = ()) -> StreamProgram:
        """Refuses: a stream has no hidden events.

        Args:
            front_end: Not used.
            labels: Not used.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "these are weights of self-supervised training (mask_token), which recover hidden events and name no "
            "classes, so there is nothing to export; train a classifier that begins with them: python -m train fit "
            "--config event2vec_dvs_lip_cluster_event.yaml --model.load CHECKPOINT"
        )

    def hide(self, inputs: Inputs, time: Tensor, weight: Tensor, hidden: Tensor) -> Tensor:
        """(B, L, d) tokens with the coordinates of hidden events replaced; padding is left to the attention."""
        place = torch.where(hidden[..., None], self.mask_token, self.embed_net(inputs.points))
        return (place + time) * weight[..., None]


def recovery_loss(recovered: Recovered) -> Tensor:
    """Squared distance in [-1, 1]^3, averaged over hidden events; 0 for none (published: 0/0)."""
    return (recovered.guess - recovered.truth).square().sum() / max(len(recovered.guess), 1)


def recovery_metrics(config: Event2VecConfig, recovered: Recovered) -> dict[str, Tensor]:
    """The published figures over n hidden events, to be averaged with weight n.

    Args:
        config: The network's, for the sensor.
        recovered: Guesses and truth.

    Returns:
        `p_accuracy`; `mae_y` and `mae_x` in pixels; `exact_match_accuracy`, all three right; `neighbor_accuracy`,
        polarity right and both coordinates within 3 pixels.
    """
    guess, truth = recovered.guess, recovered.truth
    sizes = (config.polarities, config.height, config.width)
    pixels = [_pixel(guess[:, n], size) - _pixel(truth[:, n], size) for n, size in enumerate(sizes)]
    polarity = (guess[:, 0] > 0) == (truth[:, 0] > 0)
    dy, dx = pixels[1].abs(), pixels[2].abs()
    return {
        "p_accuracy": polarity.double().mean(),
        "mae_y": dy.double().mean(),
        "mae_x": dx.double().mean(),
        "exact_match_accuracy": (polarity & (dy == 0) & (dx == 0)).double().mean(),
        "neighbor_accuracy": (polarity & (dy <= NEAR) & (dx <= NEAR)).double().mean(),
    }


def _pixel(value: Tensor, size: int) -> Tensor:
    return ((value + 1) / 2 * (size - 1)).round().clamp(0, size - 1)
