"""What both event-ssm networks share of their stream programs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from models.tables import Tables
from neurocompile.program import ChunkSpec, StreamProgram, TensorSpec
from runtime.front_ends import TokenDt


def stage_outputs(name: str, width: int) -> tuple[TensorSpec, TensorSpec]:
    """What a network stage hands on: features `NAME.z` and their duration `NAME.gap`."""
    return TensorSpec(f"{name}.z", "float32", (width,)), TensorSpec(f"{name}.gap", "float32", (), unit="ms")


def finish(
    tables: Tables, family: str, model: Any, front_end: TokenDt, labels: tuple[str, ...], chunk: ChunkSpec | None
) -> StreamProgram:
    """The program over complete tables.

    Args:
        tables: Stages and states.
        family: Model family.
        model: The network, for its period and its own forward.
        front_end: Token rule, sensor and gap convention.
        labels: Class names in logit order.
        chunk: The chunk form, or `None`.
    """
    at_once = "every event is processed when it arrives"
    waits = "event k is processed when event k+1 arrives, as published"
    notes = {
        "flush": "incomplete groups at the end of a stream are not part of the answer, as published",
        "dt": waits if front_end.dt == "next" else at_once,
    }
    period = model.config.total_downsampling
    return tables.program(
        family, front_end, labels, lambda items: offline(model, items), period=period, chunk=chunk, notes=notes
    )


def offline(model: Any, items: Mapping[str, np.ndarray]) -> np.ndarray:
    """The network's own forward in float64 over a whole stream.

    The stream is padded to full groups with gaps of 0, as in published evaluation, so that `timepool` divides by the
    whole duration; mode `last` is only defined on the unpadded stream.

    Args:
        model: The network.
        items: `token` and `dt`, (N,) each.

    Returns:
        (C,) float64 logits.
    """
    double = copy.deepcopy(model).double().eval()
    count, period = len(items["token"]), model.config.total_downsampling
    pad = 0 if model.config.classification_mode == "last" else -count % period
    token = torch.as_tensor(np.pad(items["token"], (0, pad), constant_values=-1))
    dt = torch.as_tensor(np.pad(items["dt"].astype(np.float64), (0, pad)))
    with torch.inference_mode():
        return double(token[None], dt[None], torch.tensor([count]))[0].numpy()
