"""Tasks: what a stage computes, tensor by tensor, before loops are formed. Views are already resolved."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from neurocompile.lowering.loops import OPERATIONS, Constant
from neurocompile.lowering.views import Joined, Tensor, View, contiguous
from runtime.errors import UserError

Operand = View | Constant
COMPARISONS = ("less", "less_equal", "equal", "and", "or", "not")
LOOP_DTYPES = ("float32", "int64", "int32", "bool")


@dataclass(eq=False)
class Task:
    """One tensor operation.

    Attributes:
        kind: `map` (elementwise), `fold`, `matvec`, `matmul`, `rows`, `scatter` or `attention`.
        operation: An operation or fold of the loop level; `copy` for a map that only moves.
        operands: Of a product: the pieces of x. Of `rows`: table and index. Of `scatter`: source, x and index.
            Of `attention`: q, k, v, log_f and perhaps what is known.
        target: Where the result goes.
        weight: Of a product: the (K, N) matrix.
        cut: Of `attention`: keys from one answer to the next.
    """

    kind: str
    operation: str
    operands: tuple[Operand, ...]
    target: View
    weight: Tensor | None = None
    cut: int = 0

    @property
    def box(self) -> tuple[int, ...]:
        """The iterations, without dimensions of size 1."""
        shape = (
            self.operands[0].shape if self.kind == "fold" and isinstance(self.operands[0], View) else self.target.shape
        )
        return tuple(n for n in shape if n != 1)

    @property
    def views(self) -> list[View]:
        """The operands that are no constants."""
        return [operand for operand in self.operands if isinstance(operand, View)]


class Weights:
    """The constants of a program; equal arrays are kept once."""

    def __init__(self) -> None:
        self.tensors: dict[bytes, Tensor] = {}

    def add(self, array: np.ndarray) -> Tensor:
        """The tensor of an array."""
        array = np.ascontiguousarray(array)
        key = hashlib.sha256(repr((array.dtype.str, array.shape)).encode() + array.tobytes()).digest()
        if key not in self.tensors:
            name = f"w{len(self.tensors)}"
            self.tensors[key] = Tensor(name, array.dtype.name, array.shape, "weight", array)
        return self.tensors[key]


class StageBuilder:
    """Collects the tasks of one stage.

    Attributes:
        stage: The stage's name, for messages.
        tasks: In an order in which they may run.
    """

    def __init__(self, stage: str, weights: Weights) -> None:
        self.stage, self.weights = stage, weights
        self.tasks: list[Task] = []

    def refuse(self, operator: str, why: str) -> NoReturn:
        """Raises `UserError`: this stage cannot become loops."""
        raise UserError(
            f"operator {operator} in stage {self.stage!r} cannot be compiled to C: {why}; export for onnx-fp32 instead"
        )

    def constant(self, array: np.ndarray, operator: str = "constant") -> Operand:
        """A constant array; single numbers become immediates."""
        if array.dtype.name == "float64":
            array = array.astype(np.float32)
        if array.dtype.name not in LOOP_DTYPES:
            self.refuse(operator, f"it works on {array.dtype.name}")
        if array.size == 1 and array.ndim == 0:
            return Constant(array.item(), array.dtype.name)
        return self.weights.add(array).whole()

    def tensor(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """A new local tensor."""
        if dtype not in LOOP_DTYPES:
            self.refuse("result", f"its type is {dtype}")
        return Tensor(f"b{len(self.tasks)}", dtype, shape)

    def map(self, operation: str, *operands: Operand, dtype: str = "") -> View:
        """An elementwise operation with broadcasting.

        The result lies in memory in the order of the first operand that has its shape, so that what is transposed only
        to be normalised and transposed back is never moved.
        """
        assert operation in OPERATIONS, operation
        shapes = [operand.shape if isinstance(operand, View) else () for operand in operands]
        shape = tuple(np.broadcast_shapes(*shapes))
        kind = dtype or ("bool" if operation in COMPARISONS else operands[-1].dtype)
        order = next((v.order for v in operands if isinstance(v, View) and v.shape == shape), None)
        if order is None or order == tuple(range(len(shape))):
            return self._add("map", operation, operands, self.tensor(shape, kind).whole())
        turned = tuple(v.broadcast(shape).transpose(order) if isinstance(v, View) else v for v in operands)
        target = self.tensor(tuple(shape[d] for d in order), kind).whole()
        return self._add("map", operation, turned, target).transpose(tuple(order.index(d) for d in range(len(order))))

    def fold(self, kind: str, operand: View, axes: tuple[int, ...] | None = None) -> View:
        """A fold over some axes, which are kept with size 1, or over every element, to a scalar."""
        shape = () if axes is None else tuple(1 if d in axes else n for d, n in enumerate(operand.shape))
        return self._add("fold", kind, (operand,), self.tensor(shape, operand.dtype).whole())

    def mat_vec(self, pieces: tuple[View, ...], weight: np.ndarray) -> View:
        """x W for x in pieces of one dimension each and a (K, N) array."""
        tensor = self.tensor((weight.shape[1],), "float32")
        return self._add("matvec", "matvec", pieces, tensor.whole(), self.weights.add(weight))

    def mat_mul(self, pieces: tuple[View, ...], weight: np.ndarray) -> View:
        """x W for every row of x, in pieces (R, length), and a (K, N) array."""
        whole = []
        for piece in pieces:
            if piece.shape[1] != 1 and piece.strides[1] != 1:
                tensor = self.tensor(piece.shape, piece.dtype)
                self.copy(piece, tensor.whole())
                piece = tensor.whole()
            whole.append(piece)
        tensor = self.tensor((pieces[0].shape[0], weight.shape[1]), "float32")
        return self._add("matmul", "matmul", tuple(whole), tensor.whole(), self.weights.add(weight))

    def rows(self, table: View, index: View) -> View:
        """The rows (R, W) of a whole table (V, W) that an index (R,) names."""
        tensor = self.tensor((index.shape[0], table.shape[1]), table.dtype)
        return self._add("rows", "rows", (table, index), tensor.whole())

    def scatter(self, source: View, x: View, index: View) -> View:
        """A whole table (V, W) with the rows that an index (R,) names taken from x (R, W)."""
        tensor = self.tensor(source.shape, source.dtype)
        return self._add("scatter", "scatter", (source, x, index), tensor.whole())

    def attention(self, operands: tuple[View, ...], target: View, cut: int) -> None:
        """Forgetting attention of one sequence, see `loops.Attention`; `operands` are q, k, v, log_f, perhaps known."""
        self._add("attention", "attention", operands, target, cut=cut)

    def copy(self, operand: Operand, target: View) -> None:
        """Moves elements."""
        self._add("map", "copy", (operand,), target)

    def materialise(self, value: View | Joined | Constant) -> View:
        """A view of the value, copied together where it has to be."""
        if isinstance(value, View):
            return value
        shape = value.shape if isinstance(value, Joined) else ()
        target = self.tensor(shape, value.dtype).whole()
        if isinstance(value, Joined):
            self.write_pieces(value, target)
        else:
            self.copy(value, target)
        return target

    def whole(self, view: View) -> View:
        """The view, copied together unless its elements lie side by side in their order."""
        if view.is_contiguous and view.row is None:
            return view
        target = self.tensor(view.shape, view.dtype).whole()
        self.copy(view, target)
        return target

    def write_pieces(self, joined: Joined, target: View) -> None:
        """Copies the pieces of a concatenation to where they belong."""
        begin = 0
        for piece in joined.pieces:
            size = piece.shape[joined.axis]
            self.copy(piece, target.narrow(joined.axis, begin, size))
            begin += size

    def reshape(self, value: View | Joined | Constant, shape: tuple[int, ...]) -> Operand:
        """The value in another shape; copied only where no index map does it."""
        if isinstance(value, Constant):
            return self.weights.add(np.full(shape, value.value, value.dtype)).whole() if shape else value
        view = self.materialise(value)
        if (result := view.reshape(shape)) is not None:
            return result
        target = self.tensor(view.shape, view.dtype)
        self.copy(view, target.whole())
        return View(target, shape, contiguous(shape))

    def _add(
        self,
        kind: str,
        operation: str,
        operands: tuple[Operand, ...],
        target: View,
        weight: Tensor | None = None,
        cut: int = 0,
    ) -> View:
        if kind == "map":
            operands = tuple(v.broadcast(target.shape) if isinstance(v, View) else v for v in operands)
        task = Task(kind, operation, operands, target, weight, cut)
        self.tasks.append(task)
        target.tensor.producers.append(task)
        return target
