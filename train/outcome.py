"""What a command leaves in its folder: the model, its scores, its predictions."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from models.checkpoint import Checkpoint


def save_model(path: Path, checkpoint: str, **facts: Any) -> Checkpoint:
    """Writes the weights of a training checkpoint, averaged ones if it has them, as one `.safetensors` file.

    Args:
        path: The `.safetensors` file.
        checkpoint: The `.ckpt` file.
        **facts: What to remember beside the weights.

    Returns:
        What was written.
    """
    from models.checkpoint import open_checkpoint, save_checkpoint

    trained = open_checkpoint(checkpoint)
    trained.metadata |= facts
    save_checkpoint(path, trained)
    return trained


def save_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Writes numbers and names as JSON."""
    path.write_text(json.dumps(metrics, indent=2) + "\n")


def save_predictions(
    path: Path, names: Sequence[str], targets: Sequence[int], labels: Sequence[str], logits: Tensor
) -> None:
    """Writes one row per recording: name, label, predicted label, one column of logits per class.

    Args:
        path: The CSV file.
        names: Of the N recordings.
        targets: Their N true classes.
        labels: Names of the C classes.
        logits: (N, C).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    best = torch.argmax(logits, 1).tolist()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", "label", "predicted", *(f"logit_{label}" for label in labels)])
        for name, target, predicted, row in zip(names, targets, best, logits.tolist(), strict=True):
            writer.writerow([name, labels[target], labels[predicted], *(f"{value:.6g}" for value in row)])
