"""The shipped model: its bundle answers every shipped recording as the network does, and is what export makes."""

from __future__ import annotations

import numpy as np
import pytest

from export.pipeline import export_model
from models.checkpoint import open_checkpoint
from models.zoo import shipped_checkpoint
from runtime.bundle import open_bundle
from runtime.events.shipped import samples
from runtime.front_ends import front_end
from runtime.open import SHIPPED_SOURCE, open_session, shipped_bundle
from runtime.trace import push_singly

BOUND = 1e-4


@pytest.fixture(scope="module")
def program():
    checkpoint = open_checkpoint(shipped_checkpoint())
    return checkpoint.model.stream_program(checkpoint.front_end, checkpoint.labels)


@pytest.fixture(scope="module")
def bundle():
    return open_bundle(shipped_bundle())


def test_every_recording_answers_as_the_network_does(program, bundle):
    session = open_session(bundle)
    right, recordings = 0, list(samples("test"))
    assert len(recordings) == 80
    for label, recording in recordings:
        items = front_end(program.spec.front_end).open(recording.tick_us).push(recording.events)
        offline = program.offline(items)
        session.reset()
        push_singly(session, recording.events)
        answer = session.readout()
        assert np.max(np.abs(answer - offline)) <= BOUND * np.max(np.abs(offline)), recording.source
        right += int(np.argmax(answer)) == label
    assert right / len(recordings) == pytest.approx(bundle.manifest["model"]["metadata"]["test/accuracy"])


def test_answers_without_delay(bundle):
    assert bundle.program.front_end["dt"] == "previous"


def test_bundle_is_what_export_makes_of_the_checkpoint(tmp_path, bundle):
    made = open_bundle(export_model(shipped_checkpoint(), "onnx-fp32", tmp_path / "again.neuro").path)
    assert made.program == bundle.program
    assert made.manifest["model"] == bundle.manifest["model"]
    first, second = (open_session(b) for b in (bundle, made))
    _, recording = next(samples("test"))
    for session in (first, second):
        session.push(recording.events)
    np.testing.assert_allclose(first.readout(), second.readout(), rtol=1e-5, atol=1e-6)
    assert bundle.parity["status"] == "proved"


def test_source_bundle_is_what_export_makes_of_the_checkpoint(tmp_path):
    made = open_bundle(export_model(shipped_checkpoint(), "cpu-fp32@source", tmp_path / "again.neuro").path)
    shipped = open_bundle(SHIPPED_SOURCE)
    assert made.program == shipped.program
    again = f"neurocompile export --model {shipped_checkpoint()} --target cpu-fp32@source -o {SHIPPED_SOURCE}"
    assert made.read("c/model.c") == shipped.read("c/model.c"), f"the generator changed; run: {again}"
