"""Integers that follow from the shapes of a plugin's inputs: launch grids, kernel arguments, shapes of outputs.

A size is an `int`, a `Dim`, or an `Op` of two sizes. There are the operations that TensorRT's own shape expressions
have (`+ - * //`, ceiling division, max, min), all on numbers that are not negative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, Union

T = TypeVar("T")

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "//": lambda left, right: left // right,
    "cdiv": lambda left, right: -(-left // right),
    "max": max,
    "min": min,
}


class _Arithmetic:
    def __add__(self, other: Size) -> Size:
        return operation("+", self, other)  # type: ignore[arg-type]

    def __radd__(self, other: Size) -> Size:
        return operation("+", other, self)  # type: ignore[arg-type]

    def __sub__(self, other: Size) -> Size:
        return operation("-", self, other)  # type: ignore[arg-type]

    def __rsub__(self, other: Size) -> Size:
        return operation("-", other, self)  # type: ignore[arg-type]

    def __mul__(self, other: Size) -> Size:
        return operation("*", self, other)  # type: ignore[arg-type]

    def __rmul__(self, other: Size) -> Size:
        return operation("*", other, self)  # type: ignore[arg-type]

    def __floordiv__(self, other: Size) -> Size:
        return operation("//", self, other)  # type: ignore[arg-type]

    def __rfloordiv__(self, other: Size) -> Size:
        return operation("//", other, self)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Dim(_Arithmetic):
    """The length of an input along one axis.

    Attributes:
        input: Which input of the plugin, from 0.
        axis: Which axis, from 0.
    """

    input: int
    axis: int


@dataclass(frozen=True)
class Op(_Arithmetic):
    """Two sizes and what is done with them.

    Attributes:
        name: One of `OPERATIONS`.
        left: A size.
        right: A size.
    """

    name: str
    left: Size
    right: Size


Size: TypeAlias = Union[int, "Dim", "Op"]


def operation(name: str, left: Size, right: Size) -> Size:
    """`left name right`; of two plain numbers a plain number."""
    if isinstance(left, int) and isinstance(right, int):
        return OPERATIONS[name](left, right)
    if (name in ("*", "//", "cdiv") and right == 1) or (name in ("+", "-") and right == 0):
        return left
    if (name, left) in (("*", 1), ("+", 0)):
        return right
    return Op(name, left, right)


def cdiv(left: Size, right: Size) -> Size:
    """`left / right`, rounded up."""
    return operation("cdiv", left, right)


def larger(left: Size, right: Size) -> Size:
    """The larger of two."""
    return operation("max", left, right)


def smaller(left: Size, right: Size) -> Size:
    """The smaller of two."""
    return operation("min", left, right)


def fold(
    size: Size, constant: Callable[[int], T], dim: Callable[[int, int], T], combine: Callable[[str, T, T], T]
) -> T:
    """Translates a size into another language, from the leaves up.

    Args:
        size: What to translate.
        constant: Makes a number.
        dim: Makes a length, of input and axis.
        combine: Makes an operation, of its name and its two operands.
    """
    if isinstance(size, int):
        return constant(size)
    if isinstance(size, Dim):
        return dim(size.input, size.axis)
    left, right = (fold(part, constant, dim, combine) for part in (size.left, size.right))
    return combine(size.name, left, right)


def evaluate(size: Size, shapes: Sequence[Sequence[int]]) -> int:
    """The number, given the shapes of all inputs."""
    return fold(size, int, lambda i, axis: int(shapes[i][axis]), lambda name, a, b: OPERATIONS[name](a, b))


def to_json(size: Size) -> Any:
    """A number, `["dim", input, axis]`, or `[name, left, right]`."""
    return fold(size, lambda value: value, lambda i, axis: ["dim", i, axis], lambda name, a, b: [name, a, b])


def from_json(data: Any) -> Size:
    """Reads what `to_json` wrote.

    Raises:
        ValueError: If it is no size.
    """
    if isinstance(data, int) and not isinstance(data, bool):
        return data
    if not (isinstance(data, list) and len(data) == 3):
        raise ValueError(f"{data!r} is no size")
    if data[0] == "dim" and all(isinstance(part, int) and part >= 0 for part in data[1:]):
        return Dim(data[1], data[2])
    if data[0] not in OPERATIONS:
        raise ValueError(f"{data[0]!r} is no operation on sizes")
    return Op(data[0], from_json(data[1]), from_json(data[2]))
