"""Buffers and index maps into them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Buffer:
    """A flat piece of memory.

    Attributes:
        name: Unique in the program; locals are unique in their stage.
        dtype: NumPy's name, e.g. `float32`.
        size: Number of elements.
        kind: `item` (front end's value), `value` (between stages), `state`, `weight` or `local` (one firing).
    """

    name: str
    dtype: str
    size: int
    kind: str


@dataclass(frozen=True)
class Access:
    """An index map into a buffer.

    Attributes:
        buffer: The buffer.
        offset: Element of iteration (0, .., 0) and row 0.
        strides: One per dimension of the nest, in elements.
        row: Name of the int64 scalar item that selects a row, or empty.
        row_stride: Elements per row.
        rows: Number of rows; `row` lies in `[0, rows)`.
    """

    buffer: Buffer
    offset: int
    strides: tuple[int, ...]
    row: str = ""
    row_stride: int = 0
    rows: int = 1

    def span(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """First and last element touched in row 0."""
        reach = [stride * (size - 1) for stride, size in zip(self.strides, shape, strict=True)]
        return self.offset + sum(min(r, 0) for r in reach), self.offset + sum(max(r, 0) for r in reach)
