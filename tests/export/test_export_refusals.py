"""`neurocompile` refuses what it cannot work with: one sentence, an exit code, and nothing written or lost."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from export import pipeline
from neurocompile import parity


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder for bundles that must stay empty."""
    folder = tmp_path / "out"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


class Exploit:
    """A checkpoint whose opening would run code."""

    def __reduce__(self):
        return (print, ("code of the checkpoint ran",))


def damaged(kind: str, checkpoint: Path, folder: Path) -> Path:
    """A checkpoint that cannot be used."""
    path = folder / f"bad{'.safetensors' if kind in ('truncated', 'foreign') else '.pt'}"
    if kind == "truncated":
        path.write_bytes(checkpoint.read_bytes()[:-1000])
    elif kind == "foreign":
        save_file({"features.0.weight": torch.zeros(3, 3)}, path)
    elif kind == "truncated pt":
        torch.save({"state_dict": {"w": torch.zeros(1000)}}, path)
        path.write_bytes(path.read_bytes()[:-500])
    elif kind == "code":
        torch.save({"state_dict": Exploit()}, path)
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps(Exploit()))
    elif kind == "empty":
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("kind", "fragments"),
    [
        ("missing", ("bad.pt",)),
        ("truncated", ("bad.safetensors",)),
        ("truncated pt", ("bad.pt",)),
        ("empty", ("bad.pt",)),
        ("foreign", ("no known model family", "features.0.weight")),
        ("code", ("bad.pt", "trust")),
        ("plain pickle", ("bad.pt",)),
    ],
)
@pytest.mark.parametrize("command", ["export", "info"])
def test_a_bad_checkpoint(run, refused, checkpoint, place, tmp_path, kind, fragments, command):
    bad = damaged(kind, checkpoint, tmp_path)
    if command == "export":
        refused(run("export", "--model", bad, "--target", "onnx-fp32", "-o", place / "x.neuro", "--json"), *fragments)
    elif kind != "foreign":  # What it holds can be told all the same.
        refused(run("info", bad), bad.name)


@pytest.mark.parametrize(
    ("target", "fragments"),
    [
        ("onnx", ("'onnx' is no target", "onnx-fp32")),
        ("tpu-fp32", ("is no target", "onnx-fp32")),
        ("onnx-fp8", ("is not built by this version", "onnx-fp32")),
        ("onnx-fp32@jetson-orin", ("leave out '@jetson-orin'",)),
        ("", ("is no target",)),
    ],
)
def test_a_bad_target(run, refused, checkpoint, place, target, fragments):
    refused(run("export", "--model", checkpoint, "--target", target, "-o", place / "x.neuro", "--json"), *fragments)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("export", "--target", "onnx-fp32"), ("--model",)),
        (("export", "--model", "x.pt"), ("--target",)),
        (("export", "--model", "x.pt", "--target", "onnx-fp32", "--nonsense"), ("--nonsense",)),
        (("compile",), ("compile",)),
        (("verify",), ("bundle",)),
        (("info", "gone.bin"), ("gone.bin", "does not exist")),
        (("verify", "gone.neuro"), ("gone.neuro",)),
    ],
)
def test_bad_usage(run, refused, arguments, fragments):
    refused(run(*arguments), *fragments)


def test_a_place_that_is_taken_or_cannot_be(run, refused, checkpoint, tmp_path):
    taken, mine = tmp_path / "taken", tmp_path / "mine.txt"
    taken.mkdir()
    mine.write_text("mine")
    (taken / "precious.txt").write_text("mine")
    for place, words in ((taken, "is no bundle"), (mine, "is no bundle"), (mine / "x.neuro", "cannot be written")):
        refused(run("export", "--model", checkpoint, "--target", "onnx-fp32", "-o", place, "--json"), words)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["mine.txt", "precious.txt", "taken"]
    assert mine.read_text() == (taken / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("columns", "options", "fragments"),
    [
        ({"side": 128}, (), ("128 x 128", "34 x 34", "--roi", "--resize")),
        ({"count": 0}, (), ("holds no events",)),
        ({"count": 300}, (), ("has 300 events", "takes at least")),
        ({"t": np.r_[np.arange(1000), 5, np.arange(1000, 1999)]}, (), ("goes backwards at event 1000", "--sort")),
        ({"side": None, "x": np.full(2000, 40)}, (), ("event 0 at x=40", "34 x 34")),
        ({}, ("--roi", "nonsense"), ("nonsense",)),
        ({}, ("--resize", "0x0"), ("0 x 0",)),
    ],
)
@pytest.mark.parametrize("command", ["export", "verify"])
def test_a_bad_recording(run, refused, checkpoint, bundle, place, recording, columns, options, fragments, command):
    path = recording(**columns)
    if command == "export":
        arguments = ("--model", checkpoint, "--target", "onnx-fp32", "-o", place / "x.neuro")
    elif columns.get("count") == 300:  # Enough for a comparison of steps and pushes.
        return
    else:
        arguments = (bundle,)
    refused(run(command, *arguments, "-i", path, *options, "--json"), *fragments)


@pytest.mark.parametrize("command", ["export", "verify"])
def test_a_missing_recording(run, refused, checkpoint, bundle, place, tmp_path, command):
    arguments = (
        ("--model", checkpoint, "--target", "onnx-fp32", "-o", place / "x.neuro") if command == "export" else (bundle,)
    )
    refused(run(command, *arguments, "-i", tmp_path / "gone.npz", "--json"), "gone.npz")


def test_a_failed_parity_leaves_no_bundle(run, refused, checkpoint, place, monkeypatch):
    monkeypatch.setitem(parity.BOUNDS, "fp32", 1e-12)
    monkeypatch.setattr(parity, "SLACK", 0.0)
    answer = run("export", "--model", checkpoint, "--target", "onnx-fp32", "-o", place / "x.neuro", "--json")
    refused(answer, "parity failed (step)", "deviates by", "events", code=1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, None])
def test_an_interruption_keeps_the_older_bundle(run, checkpoint, bundle, monkeypatch, error):
    before = {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
    if error:

        def interrupted(*arguments, **keywords):
            raise error

        monkeypatch.setattr(pipeline, "prove", interrupted)
    else:
        monkeypatch.setitem(parity.BOUNDS, "fp32", 1e-12)
        monkeypatch.setattr(parity, "SLACK", 0.0)
    answer = run("export", "--model", checkpoint, "--target", "onnx-fp32", "-o", bundle, "--json")
    assert answer.code == (130 if error else 1)
    assert answer.err == "interrupted\n" if error else answer.err.startswith("error: parity failed")
    assert {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()} == before
    assert [p.name for p in bundle.parent.iterdir()] == ["copy.neuro"]


def test_a_model_without_an_event_by_event_form(run, refused, checkpoint, place, monkeypatch):
    class Sealed(torch.nn.Module):
        """A network that only knows whole recordings."""

    def opened(*arguments, **keywords):
        found = original(*arguments, **keywords)
        found.model = Sealed()
        return found

    original = pipeline.open_checkpoint
    monkeypatch.setattr(pipeline, "open_checkpoint", opened)
    answer = run("export", "--model", checkpoint, "--target", "onnx-fp32", "-o", place / "x.neuro", "--json")
    refused(answer, "family event_ssm", "no event-by-event form", "tiny.safetensors")
