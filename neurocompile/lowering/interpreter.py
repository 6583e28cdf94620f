"""What the loop level means: every primitive, executed in NumPy. Generated code is tested against this file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import erf
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from neurocompile.lowering.loops import (
    Access,
    Apply,
    Attention,
    Constant,
    Fold,
    Let,
    LoopProgram,
    MatMul,
    MatVec,
    Nest,
    Rows,
    Scatter,
    StageLoops,
    Store,
    folded,
)
from runtime.program import ProgramSpec

MEANING: dict[str, Callable[..., np.ndarray]] = {
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "reciprocal": lambda x: 1 / x,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": np.vectorize(erf),
    "floor": np.floor,
    "not": np.logical_not,
    "relu": lambda x: np.maximum(x, 0),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": lambda a, b: np.divide(a, b) if a.dtype.kind == "f" else (a / b).astype(a.dtype),
    "max": np.maximum,
    "min": np.minimum,
    "less": np.less,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "select": np.where,
    "cast": lambda x: x,
}
FOLD: dict[str, Callable[..., np.ndarray]] = {"sum": np.sum, "max": np.max, "min": np.min}

Memory = dict[str, np.ndarray]
QUERIES = 256


def run_stage(stage: StageLoops, memory: Memory) -> None:
    """Runs one firing.

    Args:
        stage: The stage.
        memory: Flat arrays by buffer name; the stage's locals are added, filled with poison.
    """
    for buffer in stage.locals:
        memory[buffer.name] = np.full(buffer.size, _poison(buffer.dtype), buffer.dtype)
    with np.errstate(all="ignore"):
        for statement in stage.statements:
            EXECUTE[type(statement)](statement, memory)


def _poison(dtype: str) -> Any:
    return np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).min if dtype != "bool" else True


def _window(access: Access, shape: tuple[int, ...], memory: Memory) -> np.ndarray:
    """The elements under an index map, as a view of the memory."""
    flat = memory[access.buffer.name]
    row = int(memory[access.row][0]) if access.row else 0
    if not 0 <= row < access.rows:
        raise IndexError(f"row {row} of {access.buffer.name} does not exist; it has {access.rows}")
    start = flat[access.offset + row * access.row_stride :]
    return as_strided(start, shape, [stride * flat.itemsize for stride in access.strides])


def _nest(nest: Nest, memory: Memory) -> None:
    names: dict[str, np.ndarray] = {}
    for line in nest.body:
        if isinstance(line, Store):
            _window(line.access, nest.shape, memory)[...] = names[line.name]
        elif isinstance(line, Fold):
            everything = np.broadcast_to(names[line.name], nest.shape)
            gone = tuple(d for d, fold in enumerate(folded(line.access, nest.shape)) if fold)
            kept = tuple(1 if d in gone else n for d, n in enumerate(nest.shape))
            _window(line.access, kept, memory)[...] = FOLD[line.kind](everything, axis=gone, keepdims=True)
        else:
            names[line.name] = _value(line, names, nest.shape, memory)


def _value(line: Let, names: Mapping[str, np.ndarray], shape: tuple[int, ...], memory: Memory) -> np.ndarray:
    value = line.value
    if isinstance(value, Constant):
        return np.asarray(value.value, value.dtype)
    if isinstance(value, Apply):
        operands = [names[name] for name in value.operands]
        return np.asarray(MEANING[value.operation](*operands)).astype(value.dtype)
    return _window(value.access, shape, memory).copy()


def _mat_vec(product: MatVec, memory: Memory) -> None:
    x = np.concatenate([_window(access, (length,), memory) for access, length in product.pieces])
    weight = memory[product.weight.name].reshape(product.inputs, product.outputs)
    _window(product.out, (product.outputs,), memory)[...] = x @ weight


def _mat_mul(product: MatMul, memory: Memory) -> None:
    pieces = [_window(access, (product.rows, length), memory) for access, length in product.pieces]
    weight = memory[product.weight.name].reshape(product.inputs, product.outputs)
    _window(product.out, (product.rows, product.outputs), memory)[...] = np.concatenate(pieces, 1) @ weight


def _rows(rows: Rows, memory: Memory) -> None:
    index = _index(rows, memory)
    table = _window(rows.table, (rows.table_rows, rows.width), memory)
    _window(rows.out, (rows.rows, rows.width), memory)[...] = table[index]


def _scatter(scatter: Scatter, memory: Memory) -> None:
    box, index = (scatter.table_rows, scatter.width), _index(scatter, memory)
    values = _window(scatter.x, (scatter.rows, scatter.width), memory).copy()
    out = _window(scatter.out, box, memory)
    out[...] = _window(scatter.source, box, memory)
    out[index] = values


def _index(statement: Rows | Scatter, memory: Memory) -> np.ndarray:
    index = _window(statement.index, (statement.rows,), memory)
    if (index < 0).any() or (index >= statement.table_rows).any():
        name = statement.table.buffer.name if isinstance(statement, Rows) else statement.out.buffer.name
        raise IndexError(f"a row of {name} does not exist; it has {statement.table_rows}")
    return index


def _attention(op: Attention, memory: Memory) -> None:
    """Query by query in blocks; prefix sums of the gates and their differences are float64, everything else float32."""
    read = {name: _window(access, op.boxes[name], memory) for name, access in op.operands.items()}
    out, root, first = _window(op.out, op.boxes["out"], memory), np.float32(np.sqrt(op.width)), op.steps - op.queries
    for head in range(op.heads):
        keys, values = (read[name][:, head // (op.heads // op.key_heads)] for name in ("k", "v"))
        passed = np.cumsum(read["log_f"][:, head], dtype=np.float64)
        for begin in range(0, op.queries, QUERIES):
            here = slice(begin, min(begin + QUERIES, op.queries))
            places = np.arange(first + here.start, first + here.stop)
            decay = (passed[places, None] - passed[None, : op.keys]).astype(np.float32)
            scores = (read["q"][here, head] / root) @ keys.T + decay
            scores[np.arange(op.keys) > places[:, None]] = -np.inf
            if op.known is None:
                out[here, head] = _softmax(scores, values)[:, :-1]
                continue
            known = read["known"][here, head]
            for number, start in enumerate(range(0, op.keys, op.cut)):
                out[number, here, head] = _softmax(scores[:, start:], values[start:], known)


def _softmax(scores: np.ndarray, values: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """(Q, M) scores, (M, D) values and (Q, D + 1) known softmaxes -> (Q, D + 1) the same with the keys."""
    top = scores.max(1, keepdims=True)
    if known is not None:
        top = np.maximum(top, known[:, -1:])
    weights = np.exp(scores - top)
    mass, mean = weights.sum(1, keepdims=True), weights @ values
    if known is not None:
        weight = np.exp(known[:, -1:] - top)
        mass, mean = mass + weight, mean + weight * known[:, :-1]
    return np.concatenate((mean / mass, top + np.log(mass)), 1)


EXECUTE: dict[type, Callable[..., None]] = {
    Nest: _nest,
    MatVec: _mat_vec,
    MatMul: _mat_mul,
    Rows: _rows,
    Scatter: _scatter,
    Attention: _attention,
}


class LoopExecutor:
    """Runs a loop program under `runtime.session.ScheduledSession`; see `runtime.session.Executor`."""

    def __init__(self, spec: ProgramSpec, program: LoopProgram) -> None:
        self._spec, self._program = spec, program
        buffers = (*program.items, *program.values, *program.states)
        self.memory: Memory = {buffer.name: np.zeros(buffer.size, buffer.dtype) for buffer in buffers}
        self.memory |= {name: array.reshape(-1) for name, array in program.weights.items()}

    def set_items(self, values: tuple[Any, ...]) -> None:
        """See `Executor.set_items`."""
        for buffer, value in zip(self._program.items, values, strict=True):
            self.memory[buffer.name][:] = np.reshape(value, -1)

    def fire(self, stage: int) -> None:
        """See `Executor.fire`."""
        run_stage(self._program.stages[self._spec.stages[stage].name], self.memory)

    def run_chunk(self, items: Mapping[str, np.ndarray]) -> None:
        """A loop program has no chunk form; sessions on it step."""
        raise NotImplementedError("loop programs are stepped; open the session with use_chunk=False")

    def output(self, name: str) -> np.ndarray:
        """See `Executor.output`."""
        return self.memory[name].reshape(self._spec.value(name).shape).copy()

    def get_state(self, name: str) -> np.ndarray:
        """See `Executor.get_state`."""
        return self.memory[name].reshape(self._spec.state(name).shape).copy()

    def set_state(self, name: str, value: np.ndarray | float) -> None:
        """See `Executor.set_state`."""
        self.memory[name][:] = np.reshape(value, -1)
