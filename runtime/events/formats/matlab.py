"""MATLAB `.mat` recordings.

    spiketrain  (rows + 1) x N matrix (ST-MNIST): one column an event, -1 or 1 in the row of its taxel, last row
                seconds. Taxel i of a 10 x 10 pad is taken as x = i mod 10, y = i div 10; times become microseconds.
    struct      with row vectors x, y, p, ts (or t), or such vectors as variables of the file
    cell        of such structs: one recording each, read as `file.mat:7` for entry 7 (from 0)

Coordinates of structs are kept as stored, which MATLAB often counts from 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from runtime.events.container import Events, Recording
from runtime.events.formats import mat5
from runtime.events.formats.columns import recording_of
from runtime.events.formats.format import File, Format


def recognises(head: bytes) -> bool:
    """Whether it is a MATLAB 5 header, or that of the HDF5 files that MATLAB 7.3 writes."""
    return head.startswith((b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"))


def decode(file: File) -> Recording:
    """Reads the events."""
    if file.data.startswith(b"MATLAB 7.3"):
        raise file.error("was saved as version 7.3, which is not read; save it again with save(..., '-v7')")
    try:
        variables = mat5.load(file.data)
    except ValueError as error:
        raise file.error(f"is a damaged MATLAB file ({error}); copy it again") from None
    cells = {name: value for name, value in variables.items() if isinstance(value, list)}
    if len(cells) == 1:
        ((name, entries),) = cells.items()
        if file.entry is None or not file.entry < len(entries):
            raise file.error(
                f"holds {len(entries)} recordings in {name}; name one as file.mat:0 to :{len(entries) - 1}"
            )
        return _struct(file, entries[file.entry])
    if file.entry is not None:
        raise file.error("holds no cell of recordings, so there is no entry to name")
    if isinstance(variables.get("spiketrain"), np.ndarray):
        return _taxels(file, variables["spiketrain"])
    structs = [value for value in variables.values() if isinstance(value, dict)]
    return _struct(file, structs[0] if len(structs) == 1 else variables)


def _struct(file: File, value: Any) -> Recording:
    if not isinstance(value, dict):
        raise file.error("holds no struct with fields x, y, p and ts")
    return recording_of(file, {name: v.ravel() for name, v in value.items() if isinstance(v, np.ndarray)})


def _taxels(file: File, train: np.ndarray) -> Recording:
    side = math.isqrt(train.shape[0] - 1) if train.ndim == 2 and train.shape[0] > 1 else 0
    if side * side + 1 != train.shape[0]:
        raise file.error(f"spiketrain has shape {train.shape}; it must have one row a taxel of a square pad, and times")
    pad, seconds = train[:-1], train[-1]
    # Times as microseconds in 53 bits: beyond that a double no longer tells them apart.
    if not (np.isfinite(seconds).all() and np.abs(seconds).max(initial=0) < (1 << 53) / 1e6):
        raise file.error("spiketrain has times that are not finite numbers of seconds")
    event, taxel = np.nonzero(pad.T)
    on = pad[taxel, event] > 0
    return Recording(Events(np.rint(seconds[event] * 1e6), taxel % side, taxel // side, on), side, side)


FORMAT = Format("mat", "MATLAB 5", (".mat",), recognises, decode)
