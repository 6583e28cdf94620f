"""The coverage table: what every stage is made of, and who computes it, before anything is built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import onnx_ir as ir

from neurocompile.passes.typed import precision
from neurocompile.targets.trt.plugged import Placed

OURS = "neurocompile"


def coverage(models: dict[str, ir.Model], placed: Iterable[Placed] = ()) -> dict[str, dict[str, Any]]:
    """What graphs are made of.

    Args:
        models: Typed graphs; op nodes that are left become plugins.
        placed: All op nodes that the program had.

    Returns:
        Per stage: `nodes`, `precision` (node kind -> precision -> count), `native`, `plugins` (node counts), and `ops`
        (node, operator, and who computes it).
    """
    table, placed = {}, list(placed)
    for name, model in models.items():
        kinds: dict[str, Counter[str]] = {}
        for node in model.graph:
            kinds.setdefault(node.op_type, Counter())[precision(node)] += 1
        plugins = Counter(node.op_type for node in model.graph if node.domain == OURS)
        table[name] = {
            "nodes": len(model.graph),
            "precision": {kind: dict(counts) for kind, counts in sorted(kinds.items())},
            "native": len(model.graph) - plugins.total(),
            "plugins": dict(plugins),
            "ops": [{"node": p.node, "op": p.op, "by": _by(p)} for p in placed if p.stage == name],
        }
    return table


def _by(placed: Placed) -> str:
    if placed.plan:
        count = len(placed.plan.launches)
        return f"plugin, {count} {'launch' if count == 1 else 'launches'}"
    return f"native layers ({placed.reason})" if placed.reason else "native layers"


def show(table: dict[str, dict[str, Any]], target: str, tensorrt: str) -> str:
    """The table as text: one line per stage, and one per precision with the node kinds that compute in it."""
    lines = [f"coverage of {target} with TensorRT {tensorrt}: nodes that are native layers, nodes that are plugins"]
    width = max(len(name) for name in table)
    for name, row in table.items():
        plugins = ", ".join(f"{count} {kind}" for kind, count in row["plugins"].items()) or "0 plugins"
        lines.append(f"  {name:{width}}  {row['nodes']:4} nodes  {row['native']:4} native  {plugins}")
        lines += [f"  {'':{width}}  {op['node']} ({op['op']}): {op['by']}" for op in row["ops"]]
        by_precision: dict[str, list[str]] = {}
        for kind, counts in row["precision"].items():
            for kind_precision, count in counts.items():
                by_precision.setdefault(kind_precision, []).append(f"{count} {kind}")
        lines += [f"  {'':{width}}  {key:>5}: {', '.join(kinds)}" for key, kinds in sorted(by_precision.items())]
    return "\n".join(lines)
