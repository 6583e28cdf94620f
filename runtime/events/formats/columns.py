"""From named columns to a recording: which names mean what, and what values they may hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from runtime.events.container import Events, Recording
from runtime.events.formats.format import File

ALIASES = {
    "t": ("t", "ts", "time", "timestamp", "timestamps", "times"),
    "x": ("x", "xs", "units", "channel"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "on"),
}


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
    for name, array in columns.items():
        if array.ndim != 1 or array.shape != length:
            raise file.error(
                f"column {name} has shape {array.shape}, but t has {length}; all must be one-dimensional and equal"
            )
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
    events = Events(columns["t"], columns["x"], columns["y"], columns["p"] > 0)
    width, height = (int(values[name]) if name in values else None for name in ("width", "height"))
    return Recording(events, width, height, values.get("tick_us", 1.0))


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
