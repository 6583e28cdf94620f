"""Labels of low precision: counted on the shipped test recordings, refused below 98 %, skipped with a reason."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from models.checkpoint import open_checkpoint
from models.zoo import shipped_checkpoint
from neurocompile.agreement import label_agreement
from neurocompile.program import StreamProgram
from runtime.errors import GateError
from runtime.front_ends import Window


class Oracle:
    """Answers the recordings' labels in order, except every `wrong`-th one."""

    def __init__(self, truth: list[int], wrong: int) -> None:
        self.truth, self.wrong, self.number = truth, wrong, count()

    def reset(self) -> None:
        n = next(self.number)
        label = self.truth[n]
        self.label = (label + 1) % 10 if self.wrong and n % self.wrong == 0 else label

    def push(self, events) -> int:
        return len(events)

    def settle(self) -> None: ...

    def readout(self) -> np.ndarray:
        return np.eye(10)[self.label]


@pytest.fixture(scope="module")
def shipped() -> StreamProgram:
    checkpoint = open_checkpoint(shipped_checkpoint())
    return checkpoint.model.stream_program(checkpoint.front_end, checkpoint.labels)


@pytest.fixture
def known(shipped):
    """(program whose offline forward knows the labels, these labels)."""
    from runtime.events.shipped import samples

    truth = [label for label, _ in samples("test")]
    answers = iter(truth)
    return StreamProgram(shipped.spec, shipped.modules, lambda items: np.eye(10)[next(answers)]), truth


def test_agreement_and_accuracy_are_counted(known):
    program, truth = known
    found = label_agreement(program, lambda tick_us: Oracle(truth, 0), "int8")
    assert (found["recordings"], found["agreement"], found["accuracy"]) == (80, 1.0, 1.0)


def test_too_many_other_labels_fail(known):
    program, truth = known
    with pytest.raises(GateError, match=r"label on 97\.5% of 80 test recordings, 98% is required"):
        label_agreement(program, lambda tick_us: Oracle(truth, 40), "bf16")


@pytest.mark.parametrize("window", [2048, 100_000])
def test_recordings_too_short_for_a_window_do_not_count(known, window):
    from runtime.events.shipped import samples

    program, _ = known
    spec = replace(program.spec, front_end=Window(34, 34, window, 16).to_json())
    long = [label for label, recording in samples("test") if len(recording.events) >= window]
    answers = iter(long)
    program = StreamProgram(spec, program.modules, lambda items: np.eye(10)[next(answers)])
    found = label_agreement(program, lambda tick_us: Oracle(long, 0), "bf16")
    if not long:
        assert found == {"skipped": "none of the 80 test recordings is long enough for an answer"}
    else:
        assert 0 < found["recordings"] == len(long) == 80 - found["too_short"] < 80
        assert found["agreement"] == 1.0


def test_where_there_is_nothing_to_count_the_reason_is_kept(shipped):
    other = StreamProgram(replace(shipped.spec, labels=("cat", "dog")), shipped.modules, shipped.offline)
    blind = StreamProgram(shipped.spec, shipped.modules)

    def never(tick_us):
        raise AssertionError("nothing should run")

    assert "parity of numbers" in label_agreement(shipped, never, "fp32")["skipped"]
    assert "no labelled recordings" in label_agreement(other, never, "int8")["skipped"]
    assert "offline" in label_agreement(blind, never, "int8")["skipped"]
