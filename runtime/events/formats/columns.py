"""From named columns to a recording: which names mean what, and what values they may hold.

Columns with an `intensity` are clusters of events: centres, so their x and y may be fractions, which count as the
nearest pixel (ties to even, as the published program rounds them), and so may t, which becomes whole billionths of its
unit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from runtime.errors import UserError
from runtime.events.container import Events, Recording
from runtime.events.formats.format import File

ALIASES = {
    "t": ("t", "ts", "time", "timestamp", "timestamps", "times"),
    "x": ("x", "xs", "units", "channel"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "on"),
    "intensity": ("intensity",),
}
FINE = 10**9
"""Ticks in a unit of fractional times."""


def recording_of(
    file: File, arrays: Mapping[str, np.ndarray], about: Mapping[str, np.ndarray] | None = None
) -> Recording:
    """A recording out of columns.

    Args:
        file: Where they come from, for messages.
        arrays: Columns by name; t and x must be there, y defaults to 0 and p to ON.
        about: Scalars width, height and tick_us, as far as known.

    Raises:
        UserError: If a column is missing, of another length, or holds what an event cannot have.
    """
    lower = {name.lower(): array for name, array in arrays.items()}
    columns = {}
    for column, names in ALIASES.items():
        found = [name for name in names if name in lower]
        if found:
            columns[column] = lower[found[0]]
    if "t" not in columns or "x" not in columns:
        raise file.error(f"has arrays {', '.join(sorted(arrays)) or 'none'}; it needs t, x, y and p")
    length = columns["t"].shape
    for name in "yp":
        columns.setdefault(name, np.zeros(length, np.uint8) if name == "y" else np.ones(length, np.uint8))
    weight, tick_us = columns.pop("intensity", None), 1.0
    for name, array in {**columns, **({} if weight is None else {"intensity": weight})}.items():
        if array.ndim != 1 or array.shape != length:
            raise file.error(
                f"column {name} has shape {array.shape}, but t has {length}; all must be one-dimensional and equal"
            )
        if name == "intensity":
            continue
        if weight is not None and array.dtype.kind == "f" and name != "p":
            array, fine = _centres(file, name, array)
            tick_us = 1 / 1000 if fine else tick_us
        columns[name] = _whole(file, name, array)
    for name in "xy":
        if len(columns[name]) and not (columns[name].min() >= 0 and columns[name].max() < 1 << 16):
            raise file.error(
                f"column {name} goes from {columns[name].min()} to {columns[name].max()}; it must be 0 to 65535"
            )
    if not np.isin(columns["p"], (-1, 0, 1)).all():
        raise file.error("column p holds other values than 0 and 1 (or -1 and 1)")
    values = {}
    for name, array in (about or {}).items():
        value = float(array) if array.shape == () and array.dtype.kind in "iuf" else 0.0
        if not 0 < value < 1 << 32 or (name != "tick_us" and value != int(value)):
            raise file.error(f"{name} must be one positive number")
        values[name] = value
    try:
        events = Events(columns["t"], columns["x"], columns["y"], columns["p"] > 0, weight)
    except UserError as error:
        raise file.error(str(error)) from None
    width, height = (int(values[name]) if name in values else None for name in ("width", "height"))
    return Recording(events, width, height, values.get("tick_us", tick_us))


def _centres(file: File, name: str, array: np.ndarray) -> tuple[np.ndarray, bool]:
    """Centres of clusters as whole numbers, and whether these are fine ticks."""
    if not np.isfinite(array).all():
        raise file.error(f"column {name} holds numbers that are none; make the clusters again")
    if name != "t":
        return np.rint(array), False
    if (array == np.rint(array)).all():
        return array, False
    if np.abs(array).max() * FINE >= 1 << 62:
        raise file.error("column t holds fractions beside numbers that are too large for them; divide it by its last")
    return np.rint(array * FINE).astype(np.int64), True


def _whole(file: File, name: str, array: np.ndarray) -> np.ndarray:
    """The column as int64, if it loses nothing by that."""
    if array.dtype.kind in "iub":
        if array.dtype == np.uint64 and len(array) and array.max() >= 1 << 63:
            raise file.error(f"column {name} reaches {array.max()}, beyond 63 bits")
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        if len(array) and not (
            np.isfinite(array).all() and np.abs(array).max() < 1 << 53 and (array == np.rint(array)).all()
        ):
            raise file.error(f"column {name} is not whole numbers; give times in ticks (microseconds) as integers")
        return array.astype(np.int64)
    raise file.error(f"column {name} is of type {array.dtype}; it must be numbers")
