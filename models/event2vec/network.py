"""Event2Vec: the network from events to logits (arXiv 2504.15371)."""

from __future__ import annotations

from torch import Tensor, nn

from models.event2vec.config import Event2VecConfig
from models.event2vec.embedding import CoordinateEmbedding, TemporalEmbedding
from models.event2vec.encoder import Encoder, EncoderLayer, encode, mean
from models.event2vec.events import Inputs, prepare
from models.event2vec.once import PastTemporalEmbedding, once_program
from models.event2vec.stream import stream_program
from neurocompile.program import StreamProgram
from runtime.front_ends import Window


class Backbone(nn.Module):
    """Embeddings and encoders under their published names; classifier and recovery share it.

    Args:
        config: The configuration.

    Attributes:
        config: The configuration.
        embed_net: Perceptron on coordinates.
        tpe: Convolution over gaps.
        backbone_net: One `Encoder`, or with pooling a `ModuleList` of them.
    """

    def __init__(self, config: Event2VecConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_net = CoordinateEmbedding(config.d_model)
        past_only = config.time_scale is not None
        self.tpe = PastTemporalEmbedding(config.d_model) if past_only else TemporalEmbedding(config.d_model)
        # As published, all layers begin as copies of one.
        first = EncoderLayer(config)
        encoders = [Encoder(config, first, count) for count in config.encoders]
        self.backbone_net = nn.ModuleList(encoders) if config.pool_every_layer else encoders[0]

    def tokens(self, inputs: Inputs, intensity: Tensor | None = None) -> Tensor:
        """(B, L, d) sums of both embeddings times intensity, 0 where an event does not count."""
        weight = inputs.mask.to(inputs.gaps.dtype)
        if intensity is not None:
            weight = weight * intensity.to(weight.dtype)
        return (self.embed_net(inputs.points) + self.tpe(inputs.gaps)) * weight[..., None]

    def encode(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """See `models.event2vec.encoder.encode`."""
        return encode(self.backbone_net, x, mask)


class Event2Vec(Backbone):
    """The classifier: mean over tokens, then one linear map.

    Args:
        config: The configuration, with `mask_ratio` 0.

    Attributes:
        heads: Linear map to logits.
    """

    def __init__(self, config: Event2VecConfig) -> None:
        super().__init__(config)
        self.heads = nn.Linear(config.d_model, config.num_classes)

    def forward(
        self, p: Tensor, y: Tensor, x: Tensor, t: Tensor, mask: Tensor, intensity: Tensor | None = None
    ) -> Tensor:
        """Classifies a padded batch; the inputs are not changed.

        Args:
            p: (B, L) polarities, from 0.
            y: (B, L) rows.
            x: (B, L) columns.
            t: (B, L) times, of any unit; integers keep their differences exact.
            mask: (B, L) bool, false on padding.
            intensity: (B, L) weight of every event, e.g. the size of the cluster it stands for.

        Returns:
            (B, C) logits; the bias of `heads` for a sample whose events all lie outside the sensor.

        Raises:
            UserError: If the times of a sample are all equal, or L cannot be pooled.
        """
        inputs = prepare(self.config, p, y, x, t, mask, self.heads.weight.dtype)
        features, counted = self.encode(self.tokens(inputs, intensity), inputs.mask)
        return self.heads(mean(features, counted))

    def stream_program(self, front_end: Window, labels: tuple[str, ...] = ()) -> StreamProgram:
        """This network on a window of the last events, every hop; see `models.event2vec.stream`.

        Networks with a `time_scale` make their tokens once per event, see `models.event2vec.once`.

        Args:
            front_end: Sensor, window and hop.
            labels: Class names in logit order.
        """
        if self.config.time_scale is not None:
            return once_program(self, front_end, labels)
        return stream_program(self, front_end, labels)
