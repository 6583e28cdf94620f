"""A tiny model for the sensor of the shipped recordings, exported once, and the command line in this process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from models.checkpoint import Checkpoint, save_checkpoint
from models.event_ssm import EventSSM, EventSSMConfig
from neurocompile import cli
from runtime.events import Events, Recording
from runtime.events.write import write_recording
from runtime.front_ends import TokenDt

SIDE = 34
CONFIG = EventSSMConfig(2 * SIDE * SIDE, 3, 4, 4, 4, 1, 1, pooling_stride=4, pooling_mode="avgpool")


class Answer(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capfd) -> Callable[..., Answer]:
    """Runs `neurocompile ARGUMENTS`."""

    def command(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["neurocompile", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return Answer(int(caught.value.code or 0), *capfd.readouterr())

    return command


@pytest.fixture(scope="session")
def refused() -> Callable[..., None]:
    """Checks that a command said one line that names all of some fragments."""

    def check(answer: Answer, *fragments: str, code: int = 2) -> None:
        assert answer.code == code, answer
        assert answer.out == ""
        [line] = answer.err.splitlines()
        assert line.startswith("error: ")
        for fragment in fragments:
            assert fragment in line
        assert len(line) < 500

    return check


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A checkpoint of this software with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = EventSSM(CONFIG).eval()
    front_end = TokenDt("linear", SIDE, SIDE, "previous", CONFIG.num_embeddings)
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save_checkpoint(path, Checkpoint("event_ssm", model, CONFIG, front_end, ("a", "b", "c")))
    return path


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory):
    """(result, folder) of exporting that checkpoint; not to be changed."""
    from export.pipeline import export_model

    folder = tmp_path_factory.mktemp("bundles")
    return export_model(checkpoint, "onnx-fp32", folder / "tiny.neuro"), folder


@pytest.fixture
def bundle(exported, tmp_path) -> Path:
    """A copy of the bundle."""
    return Path(shutil.copytree(exported[0].path, tmp_path / "copy.neuro"))


@pytest.fixture
def recording(tmp_path) -> Callable[..., Path]:
    """Writes a recording and returns its path."""

    def write(count: int = 2000, side: int | None = SIDE, name: str = "given.npz", **columns: np.ndarray) -> Path:
        rng = np.random.default_rng(0)
        t = np.cumsum(rng.integers(0, 300, count))
        made = {"t": t, "x": rng.integers(0, side or SIDE, count), "y": rng.integers(0, side or SIDE, count)}
        made |= {"p": rng.random(count) < 0.5, **columns}
        path = tmp_path / name
        write_recording(path, Recording(Events(**made), side, side))
        return path

    return write
