"""The little of FlatBuffers that AEDAT 4 needs: fields of a root table that are scalars, strings or vectors."""

from __future__ import annotations

import struct


class Table:
    """The root table of a size-prefixed buffer.

    `struct` checks every access against the buffer and raises `struct.error` for an offset that leads outside.

    Args:
        data: The buffer with its four-byte size prefix.
        identifier: The four bytes that name its type.

    Raises:
        ValueError: If the buffer is of another type.
    """

    def __init__(self, data: bytes, identifier: bytes) -> None:
        (size,) = struct.unpack_from("<I", data)
        if data[8:12] != identifier or size + 4 > len(data):
            raise ValueError(f"is no whole {identifier.decode()} buffer")
        self.data = data
        self._table = 4 + struct.unpack_from("<I", data, 4)[0]
        self._layout = self._table - struct.unpack_from("<i", data, self._table)[0]
        if self._layout < 0:
            raise ValueError("has a table layout outside the buffer")
        (self._layout_size,) = struct.unpack_from("<H", data, self._layout)

    def scalar(self, field: int, code: str, default: int) -> int:
        """Field number `field`, of `struct` type `code`."""
        at = self._place(field)
        return default if at is None else struct.unpack_from(f"<{code}", self.data, at)[0]

    def vector(self, field: int, item_bytes: int) -> tuple[int, int]:
        """Offset and length of the vector in field number `field`; (0, 0) if it is absent."""
        at = self._place(field)
        if at is None:
            return 0, 0
        at += struct.unpack_from("<I", self.data, at)[0]
        (length,) = struct.unpack_from("<I", self.data, at)
        if at + 4 + length * item_bytes > len(self.data):
            raise ValueError("has a vector that reaches outside the buffer")
        return at + 4, length

    def string(self, field: int) -> str:
        """The string in field number `field`; empty if it is absent."""
        at, length = self.vector(field, 1)
        return self.data[at : at + length].decode("utf-8", "replace")

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry + 2 > self._layout_size:
            return None
        (offset,) = struct.unpack_from("<H", self.data, self._layout + entry)
        return self._table + offset if offset else None
