"""Tensors of a stage on their way to loops, and views of them: what only rearranges elements becomes an index map."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from neurocompile.lowering.loops import Access, Buffer


@dataclass(eq=False)
class Tensor:
    """A contiguous tensor.

    Attributes:
        name: See `Buffer.name`.
        dtype: NumPy's name.
        shape: Static shape.
        kind: See `Buffer.kind`; `next` is the new value of a state.
        array: Contents of a weight.
        rows: For an item with a domain: the number of values that it may take.
        producers: The tasks that write it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: str = "local"
    array: np.ndarray | None = None
    rows: int = 0
    producers: list[Any] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def whole(self) -> View:
        """The view of everything."""
        return View(self, self.shape, contiguous(self.shape))


@dataclass(frozen=True)
class View:
    """An index map into a tensor: shape, strides and offset in elements; `row` selects a row by a scalar item."""

    tensor: Tensor
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    row: Tensor | None = None
    row_stride: int = 0

    @property
    def dtype(self) -> str:
        """NumPy's name of the element type."""
        return self.tensor.dtype

    @property
    def is_whole(self) -> bool:
        """Whether this is all of the tensor, in its own order."""
        return self.offset == 0 and self.row is None and self.is_contiguous and prod(self.shape) == self.tensor.size

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie one behind the other, in row-major order."""
        dims = [(n, s) for n, s in zip(self.shape, self.strides, strict=True) if n != 1]
        return [s for _, s in dims] == list(contiguous(tuple(n for n, _ in dims)))

    @property
    def order(self) -> tuple[int, ...]:
        """The dimensions as they lie in memory, outermost first; as they are where the view is not all of a tensor."""
        order = tuple(sorted(range(len(self.shape)), key=lambda d: -self.strides[d] if self.shape[d] != 1 else 0))
        moved = [d for d in order if self.shape[d] != 1]
        if moved == sorted(moved) or not self.transpose(order).is_whole:
            return tuple(range(len(self.shape)))
        return order

    def reshape(self, shape: tuple[int, ...]) -> View | None:
        """The same elements in another shape; `None` where no index map does it."""
        if self.is_contiguous:
            return replace(self, shape=shape, strides=contiguous(shape))
        mine = [(n, s) for n, s in zip(self.shape, self.strides, strict=True) if n != 1]
        if tuple(n for n, _ in mine) != tuple(n for n in shape if n != 1):
            return None
        strides = iter([s for _, s in mine])
        return replace(self, shape=shape, strides=tuple(0 if n == 1 else next(strides) for n in shape))

    def transpose(self, axes: tuple[int, ...]) -> View:
        """Dimension d of the result is dimension axes[d]."""
        return replace(self, shape=tuple(self.shape[a] for a in axes), strides=tuple(self.strides[a] for a in axes))

    def narrow(self, axis: int, begin: int, size: int, step: int = 1) -> View:
        """`size` elements of one dimension from `begin` on, every `step`-th."""
        shape, strides = list(self.shape), list(self.strides)
        offset = self.offset + begin * strides[axis]
        shape[axis], strides[axis] = size, strides[axis] * step
        return replace(self, shape=tuple(shape), strides=tuple(strides), offset=offset)

    def select(self, axis: int, at: int) -> View:
        """One element of a dimension, without the dimension."""
        part = self.narrow(axis, at, 1)
        return replace(part, shape=drop(part.shape, axis), strides=drop(part.strides, axis))

    def select_row(self, row: Tensor) -> View:
        """The row of dimension 0 that a scalar item selects."""
        return replace(self, shape=self.shape[1:], strides=self.strides[1:], row=row, row_stride=self.strides[0])

    def broadcast(self, shape: tuple[int, ...]) -> View:
        """NumPy's broadcast."""
        pad = len(shape) - len(self.shape)
        sizes, strides = (1,) * pad + self.shape, (0,) * pad + self.strides
        return replace(
            self, shape=shape, strides=tuple(s if n == m else 0 for n, m, s in zip(sizes, shape, strides, strict=True))
        )

    def array(self) -> np.ndarray | None:
        """The contents, where the tensor is a weight."""
        if self.tensor.array is None or self.row is not None:
            return None
        flat = self.tensor.array.reshape(-1)
        strides = [s * flat.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides)


@dataclass(frozen=True)
class Joined:
    """A concatenation that has not been copied together: a mat-vec reads the pieces where they are."""

    pieces: tuple[View, ...]
    axis: int
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """NumPy's name of the element type."""
        return self.pieces[0].dtype


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides."""
    return tuple(prod(shape[d + 1 :]) for d in range(len(shape)))


def drop(values: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """Without one entry."""
    return values[:axis] + values[axis + 1 :]


def access_of(view: View, box: tuple[int, ...], buffers: dict[Tensor, Buffer]) -> Access:
    """The view's index map, with dimensions of size 1 left out so that it fits the nest's box."""
    strides = tuple(s for n, s in zip(view.shape, view.strides, strict=True) if n != 1)
    sizes = tuple(n for n in view.shape if n != 1)
    if sizes != box:
        raise ValueError(f"a view of {sizes} does not fit a nest over {box}")
    row, rows = (view.row.name, view.tensor.shape[0]) if view.row is not None else ("", 1)
    return Access(buffers[view.tensor], view.offset, strides, row, view.row_stride, rows)
