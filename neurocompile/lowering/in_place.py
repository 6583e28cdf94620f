"""New values of states go where the old ones are if nothing reads those afterwards; otherwise they are copied there.

A new value may take the old one's place if every statement that reads the old value comes before the statement that
writes the new one, or is that very statement: a scatter into the old value that reads it for nothing else, or a nest
that reads the same element that the iteration writes, or other elements than any iteration writes, or, along one
dimension, elements further on, as a ring does that moves up: iterations run in ascending order.
"""

from __future__ import annotations

from dataclasses import replace

from neurocompile.lowering.loops import (
    Access,
    Buffer,
    Fold,
    Let,
    Load,
    Nest,
    Scatter,
    Statement,
    Store,
    accesses,
    renamed,
)


def settle(
    statements: list[Statement], states: dict[str, tuple[Buffer, Buffer]]
) -> tuple[list[Statement], list[Buffer]]:
    """Removes the buffers of new values.

    Args:
        statements: A stage's statements.
        states: State name -> (its buffer, the buffer of its new value).

    Returns:
        The rewritten statements, and the buffers that could not be removed and became locals.
    """
    kept, copies = [], []
    for old, new in states.values():
        if _safe(statements, old, new):
            statements = [renamed(statement, new, old) for statement in statements]
            continue
        local = replace(new, kind="local")
        statements = [renamed(statement, new, local) for statement in statements]
        kept.append(local)
        copies.append(Nest((old.size,), (Let("v", Load(Access(local, 0, (1,)))), Store(Access(old, 0, (1,)), "v"))))
    return [*statements, *copies], kept


def _safe(statements: list[Statement], old: Buffer, new: Buffer) -> bool:
    touched = [(k, access.buffer, written) for k, s in enumerate(statements) for access, _, written in accesses(s)]
    writes = sorted({k for k, buffer, written in touched if buffer == new and written})
    reads = {k for k, buffer, written in touched if buffer == old and not written}
    if not writes:
        return False
    first = writes[0]
    if any(k > first for k in reads):
        return False
    if first not in reads:
        return True
    nest = statements[first]
    if isinstance(nest, Scatter) and len(writes) == 1:
        return old not in (nest.x.buffer, nest.index.buffer)
    if not isinstance(nest, Nest):
        return False
    if any(isinstance(line, Fold) and line.access.buffer == new for line in nest.body):
        return False
    stored = [a for a, _, written in accesses(nest) if written and a.buffer == new]
    loaded = [a for a, _, written in accesses(nest) if not written and a.buffer == old]
    return all(_apart(load, store, nest.shape) for load in loaded for store in stored)


def _apart(load: Access, store: Access, shape: tuple[int, ...]) -> bool:
    if (load.offset, load.strides) == (store.offset, store.strides):
        return True
    if len(shape) == 1 and load.strides == store.strides and load.strides[0] > 0 and load.offset > store.offset:
        return not load.row and not store.row
    (low, high), (first, last) = load.span(shape), store.span(shape)
    return high < first or last < low
