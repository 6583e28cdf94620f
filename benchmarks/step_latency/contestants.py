"""Opening everybody who is not ours; who cannot take part is named with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.step_latency.jax_loop import JaxLoop, obstacle
from benchmarks.step_latency.peers import PEERS, Peer
from benchmarks.step_latency.python_loop import Driven
from benchmarks.step_latency.subject import Subject
from runtime.errors import GateError, UserError

NAMES = (*PEERS, JaxLoop.name)
PEER_EVENTS = 2048
"""Length of the part of the recording that peers on our schedule get; they are slower."""

Contestant = TypeVar("Contestant")


def open_peers(
    subject: Subject, folder: Path, chosen: Sequence[str], *, quick: bool
) -> tuple[list[Driven | JaxLoop], dict[str, str]]:
    """Opens the chosen peers, each past its gate.

    Args:
        subject: The network and the recording.
        folder: For what compilation leaves behind.
        chosen: Some of `NAMES`.
        quick: Leave out those that take minutes to compile.

    Returns:
        Those who take part; name -> reason of those who do not.
    """
    found: list[Driven | JaxLoop] = []
    absent: dict[str, str] = {}
    for peer in PEERS.values():
        if peer.name in chosen:
            why = peer.missing() or ("left out by --quick: it compiles for minutes" if quick and peer.slow else "")
            _enter(found, absent, peer.name, why, lambda peer=peer: _driven(peer, subject, folder))  # type: ignore[misc]
    if JaxLoop.name in chosen:
        why = obstacle(subject.checkpoint.model.config)
        _enter(found, absent, JaxLoop.name, why, lambda: JaxLoop(subject))
    return found, absent


def _driven(peer: Peer, subject: Subject, folder: Path) -> Driven:
    session = peer.open(subject, folder / "".join(c if c.isalnum() else "_" for c in peer.name))
    return Driven(peer.name, session, subject.events[:PEER_EVENTS], subject.gate(session))


def _enter(found: list, absent: dict[str, str], name: str, why: str, opener: Callable[[], Contestant]) -> None:
    """Whatever a stack cannot do, the others are still timed."""
    if not why:
        try:
            found.append(opener())
            return
        except GateError as error:
            why = f"fails the gate: {error}"
        except UserError as error:
            why = str(error)
        except Exception as error:
            why = f"cannot run the graphs: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    absent[name] = why
