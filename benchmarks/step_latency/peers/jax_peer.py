"""XLA through JAX on the same graphs: one jitted call per stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.step_latency.peers.calls import Call, CallExecutor, outputs_of
from benchmarks.step_latency.peers.graph_function import DTYPES, GraphFunction, Operator, common
from benchmarks.step_latency.subject import Subject
from runtime.session import ScheduledSession, Session

LARGEST = 8 << 20
"""Bytes of a constant that becomes part of the compiled function."""


def vocabulary() -> dict[str, Operator]:
    """Operators in jax.numpy."""
    import jax
    import jax.numpy as jnp

    return {
        **common(jnp),
        "Sigmoid": lambda _, a: jax.nn.sigmoid(a),
        "Concat": lambda attributes, *parts: jnp.concatenate(parts, attributes["axis"]),
        "Cast": lambda attributes, a: a.astype(DTYPES[attributes["to"]]),
        "Clip": lambda _, a, low=None, high=None: jnp.clip(a, low, high),
        "ReduceSum": lambda attributes, a, axes: a.sum(tuple(axes), keepdims=bool(attributes.get("keepdims", 1))),
    }


def xla(subject: Subject, folder: Path) -> Session:
    """A session whose stages XLA runs."""
    import jax

    spec, calls, operators = subject.spec, {}, vocabulary()
    for name, model in subject.graphs.protos().items():
        function = GraphFunction(model, operators)
        # The table of tokens stays an argument: as a constant, XLA would copy it into the executable.
        table = {key: jax.device_put(value) for key, value in function.constants.items() if value.nbytes > LARGEST}
        compiled = jax.jit(_bound(function, table))
        calls[name] = Call(partial(compiled, tuple(table.values())), function.inputs, outputs_of(spec, name))
    return ScheduledSession(spec, CallExecutor(spec, calls, np.asarray, np.asarray, live=False), use_chunk=False)


def _bound(function: GraphFunction, table: dict[str, Any]) -> Callable[..., Any]:
    import jax.numpy as jnp

    constants = {key: value for key, value in function.constants.items() if key not in table}

    def call(large: tuple[Any, ...], *inputs: Any) -> tuple[Any, ...]:
        small = {key: jnp.asarray(value) for key, value in constants.items()}
        return function({**small, **dict(zip(table, large, strict=True))}, *inputs)

    return call


PEERS = {"XLA (jax.jit)": xla}
