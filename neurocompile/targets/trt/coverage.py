"""The coverage table: what every stage is made of, and who computes it, before anything is built."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx_ir as ir

from neurocompile.passes.typed import precision

OURS = "neurocompile"


def coverage(models: dict[str, ir.Model]) -> dict[str, dict[str, Any]]:
    """Per stage: `nodes`, `precision` (node kind -> precision -> count), `native`, `plugins` (node counts)."""
    table = {}
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
        }
    return table


def show(table: dict[str, dict[str, Any]], target: str, tensorrt: str) -> str:
    """The table as text: one line per stage, and one per precision with the node kinds that compute in it."""
    lines = [f"coverage of {target} with TensorRT {tensorrt}: nodes that are native layers, nodes that are plugins"]
    width = max(len(name) for name in table)
    for name, row in table.items():
        plugins = ", ".join(f"{count} {kind}" for kind, count in row["plugins"].items()) or "0 plugins"
        lines.append(f"  {name:{width}}  {row['nodes']:4} nodes  {row['native']:4} native  {plugins}")
        by_precision: dict[str, list[str]] = {}
        for kind, counts in row["precision"].items():
            for kind_precision, count in counts.items():
                by_precision.setdefault(kind_precision, []).append(f"{count} {kind}")
        lines += [f"  {'':{width}}  {key:>5}: {', '.join(kinds)}" for key, kinds in sorted(by_precision.items())]
    return "\n".join(lines)
