"""Networks of other shapes than the golden ones against an implementation that shares nothing with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from event2vec_numpy import Numpy
from models.event2vec import Event2Vec, Event2VecConfig

# d, d_ff, heads, layers, classes, pool_every_layer, width, height
SHAPES = [
    (4, 1, 1, 1, 1, 0, 2, 2),
    (12, 7, 3, 2, 3, 0, 5, 9),
    (20, 33, 2, 4, 7, 2, 33, 17),
    (36, 10, 6, 6, 13, 3, 64, 48),
    (24, 24, 12, 2, 2, 1, 128, 128),
    (28, 3, 14, 1, 5, 1, 346, 260),
]


def make(shape):
    d, inner, heads, layers, classes, pool, width, height = shape
    config = Event2VecConfig(
        polarities=2, height=height, width=width, d_model=d, d_feedforward=inner, nheads=heads, n_layers=layers,
        num_classes=classes, pool_every_layer=pool,
    )  # fmt: skip
    rng = np.random.default_rng(sum(shape))
    model = Event2Vec(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.from_numpy(rng.normal(size=tuple(parameter.shape)))
            if name.endswith("f_proj.bias"):
                noise = 2 + 3 * noise
            elif parameter.dim() == 1:
                noise = (1.0 if name.endswith("weight") else 0.0) + 0.3 * noise
            parameter.copy_(noise if parameter.dim() == 1 else noise / parameter[0].numel() ** 0.5)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    return model, Numpy(weights, (2, height, width), heads, config.encoders if pool else None)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
@pytest.mark.parametrize("intensity", [False, True])
def test_any_shape_equals_the_description(shape, intensity):
    """Over padding, events outside the sensor, equal and late times and coordinates between pixels."""
    model, definition = make(shape)
    width, height = shape[-2:]
    rng, step = np.random.default_rng(1), model.config.total_downsampling
    for length, padded, origin in ((3, 0, 0), (37, 5, 10**15), (64, 1, 0)):
        total = -(-(length + padded) // step) * step
        p, y = rng.integers(0, 2, (2, total)), rng.integers(0, height, (2, total)).astype(float)
        x = rng.integers(-1, width + 1, (2, total)) + rng.choice([-0.5, 0.0, 0.25], (2, total))
        t = rng.choice([0, 1, 7, 4000], (2, total)).cumsum(1) + origin
        t[:, -1:] += 1
        mask = np.ones((2, total), bool)
        mask[1, length:] = False
        t[1, length:] = t[1, 0] - 1
        t[1, 1:length] += 1
        weight = rng.integers(1, 20, (2, total)).astype(float) if intensity else None
        columns = [p, y, x, t, mask] + ([weight] if intensity else [])
        with torch.inference_mode():
            found = model(*map(torch.from_numpy, columns)).numpy()
        for row in range(2):
            want = definition(*(column[row] for column in columns))
            assert np.abs(found[row] - want).max() <= 1e-9 * max(1, np.abs(want).max())
