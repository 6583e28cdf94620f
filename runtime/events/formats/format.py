"""What a file format is to the reader: a name, how to recognise it, and one decoding function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from runtime.errors import UserError
from runtime.events.container import Recording


@dataclass(frozen=True)
class File:
    """One file in memory with what the caller knows about it.

    Attributes:
        data: The bytes.
        name: Name that carries the suffix, with its folders; of a zip member, archive and member.
        size: (width, height) from the caller, for formats whose files do not say.
        tick_us: Tick length from the caller, in microseconds.
        entry: Which recording of a file that holds several, from 0.
    """

    data: bytes = field(repr=False)
    name: str
    size: tuple[int, int] | None = None
    tick_us: float | None = None
    entry: int | None = None

    def error(self, what: str) -> UserError:
        """The error to raise when this file cannot be read: its name, then `what`."""
        return UserError(f"{self.name}: {what}")


@dataclass(frozen=True)
class Format:
    """One file format.

    Attributes:
        name: Short name, the value of `format=`.
        title: What it is, in a few words.
        suffixes: File suffixes in lower case.
        recognises: Whether the first bytes of a file are this format's; `None` for formats without a header, which go
            by their suffix.
        decode: File to recording; raises `UserError` through `File.error`.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    recognises: Callable[[bytes], bool] | None
    decode: Callable[[File], Recording]
