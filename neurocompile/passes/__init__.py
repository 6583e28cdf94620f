"""Rewrites of captured programs. One pass per file; each says when it must not fire."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from neurocompile.graph_program import GraphProgram
from neurocompile.naming import name_values
from neurocompile.passes.fold_batch_norm import fold_batch_norm
from neurocompile.passes.hoist import hoist
from neurocompile.passes.report import Change
from neurocompile.passes.tabulate import tabulate

Pass = Callable[[GraphProgram], tuple[GraphProgram, list[Change]]]


def _per_graph(name: str, rewrite: Callable[[ir.Model], list[Change]]) -> Pass:
    def run(program: GraphProgram) -> tuple[GraphProgram, list[Change]]:
        program = program.copy()
        return program, [change for model in program.graphs.values() for change in rewrite(model)]

    run.__name__ = name
    return run


def _tabulate(program: GraphProgram) -> tuple[GraphProgram, list[Change]]:
    items = {item.name: item for item in program.spec.items}
    return _per_graph("tabulate", lambda model: tabulate(model, items))(program)


# Weights are constants only once their transposes and products are hoisted, and tables hold what is folded.
PASSES: dict[str, Pass] = {
    "hoist": _per_graph("hoist", hoist),
    "fold_batch_norm": _per_graph("fold_batch_norm", fold_batch_norm),
    "tabulate": _tabulate,
}


def run_passes(program: GraphProgram, names: tuple[str, ...] = tuple(PASSES)) -> tuple[GraphProgram, list[Change]]:
    """Runs passes in order.

    Args:
        program: The captured program; it is not changed.
        names: Keys of `PASSES`.

    Returns:
        The rewritten program and every change made.
    """
    changes: list[Change] = []
    for name in names:
        program, made = PASSES[name](program)
        changes += made
    if names:
        for model in program.graphs.values():
            name_values(model)
    return program, changes
