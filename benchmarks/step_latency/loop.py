"""The timing loop in C, through ctypes: passes over a recording, one event per call, in this process."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurocompile.targets.cpu.toolchains.compiler import find_compiler
from runtime.backends.native import NativeSession
from runtime.errors import InternalError
from runtime.events.container import Events

SOURCE = Path(__file__).with_name("loop.c")


@dataclass(frozen=True)
class Spent:
    """What a pass took, in seconds.

    Attributes:
        processor: Processor time of the thread.
        wall: Time on the wall.
    """

    processor: float
    wall: float


class _Events(ctypes.Structure):
    _fields_ = (("count", ctypes.c_size_t), *((name, ctypes.c_void_p) for name in "txyp"))


class Recording:
    """Events as the loop wants them; keeps their columns alive.

    Args:
        events: The events.
    """

    def __init__(self, events: Events) -> None:
        kinds = ((events.t, np.int64), (events.x, np.uint16), (events.y, np.uint16), (events.p, np.uint8))
        self.columns = [np.ascontiguousarray(column, kind) for column, kind in kinds]
        self.pointer = ctypes.byref(_Events(len(events), *(column.ctypes.data for column in self.columns)))
        self.count = len(events)


class Loop:
    """The compiled loop.

    Args:
        folder: Where its library goes.

    Attributes:
        ticks_per_second: Of the clock that blocks are timed with.
        clock_ticks: What reading it twice takes at least.
    """

    def __init__(self, folder: Path) -> None:
        library = folder / "loop.so"
        find_compiler().run("-O2", "-std=c17", "-fPIC", "-shared", str(SOURCE), "-o", str(library))
        self._library = ctypes.CDLL(str(library))
        rate = (ctypes.c_double * 2)()
        self._library.nl_clock(rate)
        self.ticks_per_second, self.clock_ticks = float(rate[0]), float(rate[1])

    @property
    def clock_ns(self) -> float:
        """What reading the clock twice takes at least, in nanoseconds."""
        return self.clock_ticks / self.ticks_per_second * 1e9

    def ns(self, ticks: np.ndarray) -> np.ndarray:
        """Ticks as nanoseconds, less the cost of the clock."""
        return np.maximum(ticks - self.clock_ticks, 0) / self.ticks_per_second * 1e9

    def single(self, sessions: Sequence[NativeSession], recording: Recording, *, reset: bool = True) -> Spent:
        """One event per call; several sessions take turns, each on its own stretch of the recording."""
        handles = (ctypes.c_void_p * len(sessions))(*(_handle(session).value for session in sessions))
        for session in sessions if reset else ():
            session.reset()
        spent = (ctypes.c_double * 2)()
        push = _function(sessions[0], "nc_push")
        self._done(self._library.nl_pass(push, handles, ctypes.c_size_t(len(sessions)), recording.pointer, spent))
        return Spent(*spent)

    def bulk(self, session: NativeSession, recording: Recording) -> Spent:
        """The whole recording in one call."""
        session.reset()
        spent = (ctypes.c_double * 2)()
        push = _function(session, "nc_push_many")
        self._done(self._library.nl_bulk(push, _handle(session), recording.pointer, spent))
        return Spent(*spent)

    def blocks(self, session: NativeSession, recording: Recording, starts: np.ndarray) -> np.ndarray:
        """Ticks that each block of events took, one event per call.

        Args:
            session: The session; it is reset first.
            recording: The events.
            starts: (M + 1,) the blocks' first events, and the end of the last block.

        Returns:
            (M,) int64, the cost of the clock included.
        """
        session.reset()
        starts, ticks = np.ascontiguousarray(starts, np.int64), np.zeros(len(starts) - 1, np.int64)
        push, places = _function(session, "nc_push"), [ctypes.c_void_p(a.ctypes.data) for a in (starts, ticks)]
        self._done(
            self._library.nl_blocks(
                push, _handle(session), recording.pointer, ctypes.c_size_t(len(ticks)), places[0], places[1]
            )
        )
        return ticks

    @staticmethod
    def _done(code: int) -> None:
        if code < 0:
            raise InternalError(f"the compiled library refused an event of the benchmark (code {code})")


def _handle(session: NativeSession) -> ctypes.c_void_p:
    return session._handle


def _function(session: NativeSession, name: str) -> ctypes.c_void_p:
    return ctypes.cast(getattr(session._model.library, name), ctypes.c_void_p)
