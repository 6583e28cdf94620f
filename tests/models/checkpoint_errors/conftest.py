"""What the tests of refused checkpoints share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch

from models.checkpoint import open_checkpoint
from runtime.errors import UserError

SHD = "event_ssm_shd_tiny_ckpt"


def check_refusal(path: Path | str, *words: str, **options: Any) -> str:
    """The sentence with which a checkpoint is refused, checked for form and words."""
    with pytest.raises(UserError) as caught:
        open_checkpoint(path, **options)
    message = str(caught.value)
    assert "\n" not in message and not message.endswith(".") and ". " not in message.replace("...", ""), message
    for word in words:
        assert word in message, message
    return message


@pytest.fixture
def state(golden) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in open_checkpoint(golden.folder / SHD).model.state_dict().items()}


@pytest.fixture
def flax(golden, tmp_path) -> Callable[..., Path]:
    """Writes a changed copy of a published file."""

    def write(change: Callable[[dict], Any]) -> Path:
        tree = msgpack.unpackb((golden.folder / SHD / "checkpoint_1" / "checkpoint").read_bytes())
        tree = change(tree) or tree
        path = tmp_path / "checkpoint_2"
        path.write_bytes(msgpack.packb(tree))
        return path

    return write


@pytest.fixture
def refusal() -> Callable[..., str]:
    return check_refusal
