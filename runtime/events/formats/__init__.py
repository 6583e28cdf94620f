"""The file formats, one module each; the first that recognises a file's bytes reads it."""

from __future__ import annotations

from runtime.events.formats import nmnist
from runtime.events.formats.format import File, Format

FORMATS: tuple[Format, ...] = (nmnist.FORMAT,)

__all__ = ["FORMATS", "File", "Format"]
