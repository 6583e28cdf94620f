"""Event2Vec from a published checkpoint to a bundle that answers, as users type it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from models.checkpoint import open_checkpoint
from runtime.bundle import open_bundle
from runtime.checks import run_checks
from runtime.events import Events
from runtime.open import open_session


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_checkpoint_of_other_shapes_becomes_a_proved_bundle(run, golden, folder):
    shutil.copy(golden.folder / "event2vec_tiny_pool.ckpt", "tiny.ckpt")
    (folder / "config.json").write_text(json.dumps({"P": 2, "H": 16, "W": 16, "window": 64}))
    answer = run("export", "--model", "tiny.ckpt", "--target", "onnx-fp32", "--config", "config.json")
    assert answer.code == 0, answer.err
    for line in ("bundle    tiny.neuro  (onnx-fp32, event2vec)", "every 4 events", "on request", "parity    proved"):
        assert line in answer.out
    bundle = open_bundle("tiny.neuro")
    assert bundle.program.front_end == {"width": 16, "height": 16, "window": 64, "hop": 4, "kind": "window"}
    assert all(check.passed for check in run_checks(bundle))
    session = open_session(bundle)
    rng = np.random.default_rng(0)
    events = Events(np.arange(64) * 7, rng.integers(0, 16, 64), rng.integers(0, 16, 64), rng.integers(0, 2, 64))
    session.push(events)
    checkpoint = open_checkpoint("tiny.ckpt", config="config.json")
    items = checkpoint.front_end.open().push(events)
    want = checkpoint.model.stream_program(checkpoint.front_end).offline(items)
    assert np.abs(session.readout() - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("tiny_ssl", {"P": 2, "H": 16, "W": 16}, "recover hidden events and name no classes"),
        ("tiny_pool", {"P": 2, "H": 16, "W": 16, "window": 66}, "66 events cannot be halved 2 times"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_sentence(name, options, words, run, golden, folder):
    (folder / "config.json").write_text(json.dumps(options))
    model = golden.folder / f"event2vec_{name}.ckpt"
    answer = run("export", "--model", model, "--target", "onnx-fp32", "--config", "config.json")
    assert answer.code == 2 and answer.err.count("error: ") == 1
    assert words in answer.err.splitlines()[-1]
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_a_window_network_in_c_is_proved_and_passes_its_checks(run, golden, folder):
    shutil.copy(golden.folder / "event2vec_tiny_pool.ckpt", "tiny.ckpt")
    (folder / "config.json").write_text(json.dumps({"P": 2, "H": 16, "W": 16, "window": 64}))
    answer = run("export", "--model", "tiny.ckpt", "--target", "cpu-fp32", "--config", "config.json")
    assert answer.code == 0, answer.err
    assert "bundle    tiny.neuro  (cpu-fp32, event2vec)" in answer.out and "parity    proved" in answer.out
    assert all(check.passed for check in run_checks(open_bundle("tiny.neuro")))


def test_windows_with_weights_in_8_bits_are_refused(run, golden, folder):
    (folder / "config.json").write_text(json.dumps({"P": 2, "H": 16, "W": 16, "window": 64}))
    model = golden.folder / "event2vec_tiny_flat.ckpt"
    answer = run("export", "--model", model, "--target", "cpu-int8", "--config", "config.json")
    assert answer.code == 2 and "fp32 or bf16, not int8" in answer.err.splitlines()[-1]
    assert [path.name for path in folder.iterdir()] == ["config.json"]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "bound"), [("onnx-fp32", 2e-5), ("cpu-fp32", 2e-5), ("cpu-bf16", 0.1)])
def test_the_gesture_checkpoint_as_typed(target, bound, run, golden, folder):
    shutil.copy(golden.folder / "event2vec_dvs_gesture.ckpt", "dvs_gesture.ckpt")
    answer = run("export", "--model", "dvs_gesture.ckpt", "--target", target)
    assert answer.code == 0, answer.err
    assert "preset dvs_gesture used because the shapes match it" in answer.out
    session = open_session(open_bundle("dvs_gesture.neuro"))
    golden_case = golden.arrays("event2vec_dvs_gesture_full")
    assert golden_case["valid_mask_eff"][0].all()
    session.push(Events(*(golden_case[name][0] for name in "txyp")))
    assert np.abs(session.readout() - golden_case["logits"][0]).max() <= bound
