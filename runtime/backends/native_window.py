"""What sessions of window programs remember, in a compiled library: the newest events and the last window."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.program import ProgramSpec

_COLUMNS = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_WEIGHTS = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t)
SIGNATURES: dict[str, tuple[Any, ...]] = {"nc_get_window": _COLUMNS, "nc_set_window": _COLUMNS}
CLUSTERS: dict[str, tuple[Any, ...]] = {
    "nc_push_cluster": (ctypes.c_void_p, ctypes.c_int64, *(ctypes.c_int32,) * 3, ctypes.c_float),
    "nc_push_clusters": (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_void_p,) * 5),
    "nc_get_intensity": _WEIGHTS,
    "nc_set_intensity": _WEIGHTS,
}
"""Libraries of models for clusters have these, see `csrc/clusters.h`."""
NEWEST, LAST = 0, 1


def is_window(spec: ProgramSpec) -> bool:
    """Whether the program's items are windows."""
    return bool(spec.front_end["kind"] == "window")


def has_intensity(spec: ProgramSpec) -> bool:
    """Whether the program takes clusters."""
    return bool(spec.front_end.get("intensity"))


def read(library: Any, handle: Any, part: int, count: int, weighted: bool) -> tuple[int, dict[str, np.ndarray]]:
    """(code, the columns) of the newest events or of the last window."""
    columns = {name: np.zeros(count, np.int64) for name in ("token", "time")}
    code = int(library.nc_get_window(handle, part, *(c.ctypes.data for c in columns.values()), count))
    if weighted and code >= 0:
        columns["intensity"] = np.zeros(count, np.float32)
        code = int(library.nc_get_intensity(handle, part, columns["intensity"].ctypes.data, count))
    return code, columns


def write(library: Any, handle: Any, part: int, columns: Mapping[str, np.ndarray], weighted: bool) -> int:
    """Sets the newest events, after the position, or the last window; returns the library's code."""
    token, time = (np.ascontiguousarray(columns[name], np.int64) for name in ("token", "time"))
    code = int(library.nc_set_window(handle, part, token.ctypes.data, time.ctypes.data, len(token)))
    if weighted and code >= 0:
        weight = np.ascontiguousarray(columns["intensity"], np.float32)
        code = int(library.nc_set_intensity(handle, part, weight.ctypes.data, len(weight)))
    return code


def fits(spec: ProgramSpec, snapshot: Mapping[str, Any]) -> bool:
    """Whether a snapshot holds the events of such a stream.

    Raises:
        KeyError: If something is missing; the caller takes that, and other kinds of damage, for a no.
    """
    size, vocabulary = int(spec.front_end["window"]), int(spec.items[0].domain[1])  # type: ignore[index]
    front, items = snapshot["front_end"], snapshot["items"]
    kept = min(int(front["events"]) // int(spec.front_end.get("every", 1)), size)
    for columns, count in ((front, kept), (items, size)):
        token, time = np.asarray(columns["token"]), np.asarray(columns["time"])
        if token.shape != (count,) or time.shape != (count,) or (np.diff(time) < 0).any():
            return False
        if ((token < 0) | (token >= vocabulary)).any():
            return False
        if has_intensity(spec):
            weight = np.asarray(columns["intensity"])
            if weight.shape != (count,) or not (np.isfinite(weight) & (weight >= 0)).all():
                return False
    return True
