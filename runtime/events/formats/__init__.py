"""The file formats, one module each; the first that recognises a file's bytes reads it."""

from __future__ import annotations

from runtime.events.formats import (
    aedat2,
    aedat3,
    aedat4,
    cochlea,
    dat,
    event_stream,
    evt2,
    evt3,
    matlab,
    nmnist,
    numpy_columns,
    ros1,
)
from runtime.events.formats.format import File, Format

FORMATS: tuple[Format, ...] = (
    evt2.FORMAT,
    evt3.FORMAT,
    dat.FORMAT,
    event_stream.FORMAT,
    aedat4.FORMAT,
    aedat3.FORMAT,
    aedat2.FORMAT,
    ros1.FORMAT,
    numpy_columns.NPZ_FORMAT,
    numpy_columns.NPY_FORMAT,
    matlab.FORMAT,
    nmnist.FORMAT,
    cochlea.FORMAT,
)

__all__ = ["FORMATS", "File", "Format"]
