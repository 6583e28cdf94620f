"""Labels of an artefact of low precision against those of the network, over recordings that nothing was trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from neurocompile.program import StreamProgram
from runtime.errors import GateError
from runtime.events.formats import nmnist
from runtime.events.shipped import mini_set, samples
from runtime.front_ends import front_end
from runtime.session import Session

REQUIRED = 0.98
"""Share of the recordings on which an artefact must give the network's label."""


def label_agreement(program: StreamProgram, open_session: Callable[[float], Session], dtype: str) -> dict[str, Any]:
    """Runs the shipped test recordings, where the model is one for them.

    Args:
        program: The model's own program; its offline forward in float64 is the network.
        open_session: Opens the artefact for a tick length in microseconds.
        dtype: The artefact's precision; `fp32` is held to its numbers, which say more than labels.

    Returns:
        What the manifest keeps: `recordings`, `agreement`, both accuracies, and how many recordings are `too_short` for
        an answer; or `skipped`, the reason.

    Raises:
        GateError: If fewer than `REQUIRED` of the labels agree.
    """
    if reason := _obstacle(program, dtype):
        return {"skipped": reason}
    front = front_end(program.spec.front_end)
    offline = program.offline
    assert offline is not None
    session: Session | None = None
    labels, networks, artefacts, too_short = [], [], [], 0
    for label, recording in samples("test"):
        items = front.open(recording.tick_us).push(recording.events)
        if not len(next(iter(items.values()))):
            too_short += 1
            continue
        session = session or open_session(recording.tick_us)
        session.reset()
        session.push(recording.events)
        session.settle()
        labels.append(label)
        networks.append(int(np.argmax(offline(items))))
        artefacts.append(int(np.argmax(session.readout())))
    if not labels:
        return {"skipped": f"none of the {too_short} test recordings is long enough for an answer"}
    wanted, network, artefact = (np.array(values) for values in (labels, networks, artefacts))
    agreement = float(np.mean(network == artefact))
    if agreement < REQUIRED:
        raise GateError(
            f"the artefact gives the network's label on {agreement:.1%} of {len(wanted)} test recordings, "
            f"{REQUIRED:.0%} is required; export in a higher precision"
        )
    return {
        "recordings": len(wanted),
        "too_short": too_short,
        "source": mini_set().name,
        "agreement": agreement,
        "required": REQUIRED,
        "accuracy": float(np.mean(artefact == wanted)),
        "accuracy_of_network": float(np.mean(network == wanted)),
    }


def _obstacle(program: StreamProgram, dtype: str) -> str:
    front, spec = program.spec.front_end, program.spec
    if dtype == "fp32":
        return "parity of numbers implies it"
    if program.offline is None:
        return "the model states no offline forward"
    digits = [str(digit) for digit in range(10)]
    if (front.get("width"), front.get("height")) != (nmnist.SIDE, nmnist.SIDE) or list(spec.labels) != digits:
        return "no labelled recordings of this model's sensor and classes are shipped"
    return ""
