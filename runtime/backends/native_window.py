"""What sessions of window programs remember, in a compiled library: the newest events and the last window."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.program import ProgramSpec

_COLUMNS = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
SIGNATURES: dict[str, tuple[Any, ...]] = {"nc_get_window": _COLUMNS, "nc_set_window": _COLUMNS}
NEWEST, LAST = 0, 1
COLUMNS = ("token", "time")


def is_window(spec: ProgramSpec) -> bool:
    """Whether the program's items are windows."""
    return bool(spec.front_end["kind"] == "window")


def read(library: Any, handle: Any, part: int, count: int) -> tuple[int, dict[str, np.ndarray]]:
    """(code, token and time) of the newest events or of the last window."""
    columns = {name: np.zeros(count, np.int64) for name in COLUMNS}
    return library.nc_get_window(handle, part, *(c.ctypes.data for c in columns.values()), count), columns


def write(library: Any, handle: Any, part: int, columns: Mapping[str, np.ndarray]) -> int:
    """Sets the newest events, after the position, or the last window; returns the library's code."""
    token, time = (np.ascontiguousarray(columns[name], np.int64) for name in COLUMNS)
    return int(library.nc_set_window(handle, part, token.ctypes.data, time.ctypes.data, len(token)))


def fits(spec: ProgramSpec, snapshot: Mapping[str, Any]) -> bool:
    """Whether a snapshot holds the events of such a stream.

    Raises:
        KeyError: If something is missing; the caller takes that, and other kinds of damage, for a no.
    """
    size, vocabulary = int(spec.front_end["window"]), int(spec.items[0].domain[1])  # type: ignore[index]
    front, items = snapshot["front_end"], snapshot["items"]
    kept = min(int(front["events"]), size)
    for columns, count in ((front, kept), (items, size)):
        token, time = np.asarray(columns["token"]), np.asarray(columns["time"])
        if token.shape != (count,) or time.shape != (count,) or (np.diff(time) < 0).any():
            return False
        if ((token < 0) | (token >= vocabulary)).any():
            return False
    return True
