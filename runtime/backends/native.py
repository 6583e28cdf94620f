"""Backend `cpu`: the library generated for one program, through ctypes; numpy and the standard library suffice."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from runtime.backends import native_window, source
from runtime.backends.native_model import NativeModel, Position
from runtime.bundle import Bundle
from runtime.errors import InternalError, UserError
from runtime.events.container import Events
from runtime.front_ends import front_end
from runtime.front_ends.limits import LATEST, refuse_intensity
from runtime.program import ProgramSpec
from runtime.schedule import counts
from runtime.session import Session

WEIGHTS = "model.weights"
LIBRARIES = ("libmodel.so", "libmodel.dylib", "libmodel.dll")
# Codes by which the library refuses an event; the front end written in numpy has the sentences.
REFUSED = (-6, -7, -8, -11)
NARROW = 1 << 16


class NativeSession(Session):
    """A stream in a compiled library; see `Session`.

    The library checks events itself. When it refuses one, the front end in numpy is asked for the reason, so that every
    backend says the same sentence.

    Attributes:
        bulk_items: Pushes of at least so many events take the bulk form; 0 if none do.
        delay_items: Items that an answer may lack before `settle`; 0 if it lacks none.
    """

    def __init__(self, spec: ProgramSpec, model: NativeModel, *, tick_us: float = 1.0, use_chunk: bool = True) -> None:
        self.spec = spec
        self.delay_items = int(model.info.delay_items)
        self.bulk_items = int(model.info.bulk_items) if use_chunk else 0
        self._model, self._tick_us = model, tick_us
        self._handle = ctypes.c_void_p()
        model.check(model.library.nc_session_open(model.handle, tick_us, ctypes.byref(self._handle)), "session")
        self._weighted = native_window.has_intensity(spec)
        self._push = model.library.nc_push
        self._push_all = model.library.nc_push_many if use_chunk else model.library.nc_push_singly
        self._numbers = {state.name: number for number, state in enumerate(spec.states)}
        self._logits = np.zeros(spec.readout.outputs[0].shape, np.float32)

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._model.library.nc_session_close(self._handle)

    @property
    def items(self) -> int:  # type: ignore[override]
        """Items processed since the last `reset`."""
        return self._position().items

    def reset(self) -> None:
        """See `Session.reset`."""
        self._check(self._model.library.nc_reset(self._handle))

    def push(self, events: Events) -> int:
        """See `Session.push`."""
        kinds = ((events.t, np.int64), (events.x, np.uint16), (events.y, np.uint16), (events.p, np.bool_))
        columns = [np.ascontiguousarray(column, kind) for column, kind in kinds]
        pointers = [column.ctypes.data for column in columns]
        if events.intensity is None:
            made = self._push_all(self._handle, len(events), *pointers)
        elif self._weighted:
            weights = events.intensity.ctypes.data
            made = self._model.library.nc_push_clusters(self._handle, len(events), *pointers, weights)
        else:
            refuse_intensity()
        if made in REFUSED:
            self._front_end().push(events)
        self._check(made)
        return made

    def push_event(self, t: int, x: int, y: int, p: bool, intensity: float | None = None) -> int:
        """See `Session.push_event`."""
        if intensity is not None:
            return self.push(Events([t], [x], [y], [p], [intensity]))  # type: ignore[arg-type]
        # ctypes cuts numbers down to the C types without a word.
        if not (0 <= x < NARROW and 0 <= y < NARROW and -LATEST <= t <= LATEST):
            self._front_end().push_event(t, x, y, p)
        try:
            made = self._push(self._handle, t, x, y, p)
        except ctypes.ArgumentError:
            made = self._push(self._handle, int(t), int(x), int(y), bool(p))
        if made < 0:
            self._front_end().push_event(t, x, y, p)
            self._check(made)
        return made

    def settle(self) -> None:
        """See `Session.settle`."""
        self._check(self._model.library.nc_settle(self._handle))

    def readout(self) -> np.ndarray:
        """See `Session.readout`."""
        self._check(self._model.library.nc_readout(self._handle, self._logits.ctypes.data, self._logits.size))
        return self._logits.copy()

    def state(self, name: str) -> np.ndarray:
        """See `Session.state`."""
        spec = self.spec.state(name)
        value = np.empty(spec.shape, spec.dtype)
        number = self._numbers[name]
        self._check(self._model.library.nc_get_state(self._handle, number, value.ctypes.data, value.nbytes))
        return value

    def snapshot(self) -> dict[str, Any]:
        """See `Session.snapshot`."""
        self.settle()
        now = self._position()
        if native_window.is_window(self.spec):
            taken = now.events // int(self.spec.front_end.get("every", 1))
            front: dict[str, Any] = {"events": now.events, "last": now.last}
            front |= self._window(native_window.NEWEST, taken)
            values: dict[str, Any] = self._window(native_window.LAST, self.spec.items[0].shape[0])
        else:
            front = {"events": now.events, "last": now.last, "pending": now.pending, "elapsed": now.elapsed}
            values = {"token": now.token, "dt": now.dt, "elapsed": now.elapsed_item}
        return {
            "front_end": front,
            "counts": counts(self.spec, now.items),
            "items": {item.name: np.asarray(values[item.name], item.dtype) for item in self.spec.items},
            "states": {state.name: self.state(state.name) for state in self.spec.states},
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """See `Session.restore`."""
        try:
            front, items, values = snapshot["front_end"], int(snapshot["counts"][-1]), snapshot["items"]
            window = native_window.is_window(self.spec)
            fits = (
                {name: (value.shape, value.dtype.name) for name, value in snapshot["states"].items()}
                == {state.name: (state.shape, state.dtype) for state in self.spec.states}
                and set(values) == {item.name for item in self.spec.items}
                and list(snapshot["counts"]) == counts(self.spec, items)
                and (not window or native_window.fits(self.spec, snapshot))
            )
            if window:
                position = Position(int(front["events"]), int(front["last"]), 0, items)
            else:
                position = Position(
                    int(front["events"]),
                    int(front["last"]),
                    int(front["pending"]),
                    items,
                    int(values["token"]),
                    float(front["elapsed"]),
                    float(values["dt"]),
                    float(values["elapsed"]),
                )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            fits = False
        library = self._model.library
        if not fits or library.nc_set_position(self._handle, ctypes.byref(position), ctypes.sizeof(Position)) < 0:
            raise UserError("this snapshot was taken of another program; restore it into a session of the same bundle")
        if window:
            self._check(native_window.write(library, self._handle, native_window.NEWEST, front, self._weighted))
            self._check(native_window.write(library, self._handle, native_window.LAST, values, self._weighted))
        for name, value in snapshot["states"].items():
            data = np.ascontiguousarray(value)
            self._check(library.nc_set_state(self._handle, self._numbers[name], data.ctypes.data, data.nbytes))

    def _window(self, part: int, events: int) -> dict[str, Any]:
        count = min(events, self.spec.items[0].shape[0])
        code, columns = native_window.read(self._model.library, self._handle, part, count, self._weighted)
        self._check(code)
        return columns

    def _position(self) -> Position:
        position = Position()
        library = self._model.library
        self._check(library.nc_get_position(self._handle, ctypes.byref(position), ctypes.sizeof(Position)))
        return position

    def _front_end(self) -> Any:
        """The front end in numpy, where this stream is."""
        stream = front_end(self.spec.front_end).open(self._tick_us)
        stream.restore(self.snapshot()["front_end"])
        return stream

    def _check(self, code: int) -> None:
        if code < 0:
            raise InternalError(f"the compiled library refuses a call: {self._model.library.nc_message(code).decode()}")


_MODELS: WeakValueDictionary[tuple[str, str], NativeModel] = WeakValueDictionary()


def open_native(bundle: Bundle, *, tick_us: float = 1.0, use_chunk: bool = True) -> NativeSession:
    """A session of a bundle of backend `cpu`; sessions of the same bundle share its weights.

    Args:
        bundle: The opened bundle.
        tick_us: Length of one tick of the events' times in microseconds.
        use_chunk: Whether bulk pushes may put firings off; see `nc_push_many`.

    Raises:
        UserError: If the library is not for this machine or a file was changed.
    """
    files = bundle.manifest["files"]
    name = next((name for name in (*LIBRARIES, source.SOURCE) if name in files), None)
    if name is None:
        raise UserError(f"{bundle.root} holds no compiled library ({', '.join(LIBRARIES)}); export the model again")
    key = (str((bundle.root / name).resolve()), files[name]["sha256"])
    model = _MODELS.get(key)
    if model is None:
        if name == source.SOURCE:
            path = source.library(bundle)
        else:
            bundle.read(name)
            path = bundle.root / name
        model = NativeModel(bundle.program, path, bundle.read(WEIGHTS))
        _MODELS[key] = model
    return NativeSession(bundle.program, model, tick_us=tick_us, use_chunk=use_chunk)
