"""Executes plans of plugins in Triton's interpreter; started by `test_trt_plugins.py` with TRITON_INTERPRET=1.

Every launch gets its arguments and its grid as an image states them, evaluated for the shapes of a case; memory between
launches is NaN at first. Reads cases from standard input, writes the largest error of every output relative to its
largest value, against the definition in float64, as JSON.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

import torch

from interpreted import relative
from neurocompile.ops.lif.neuron import Neuron
from neurocompile.ops.plugin_plan import PLANNED, planner
from neurocompile.targets.trt.plugins.compiled import constants_of, kernel_of, ordered_arguments
from runtime.plugins.sizes import evaluate


def run(
    op: str, shapes: list[list[int]], operand: str, planned: list[list[int]], programs: int, attributes: dict
) -> list[float]:
    """Errors of the outputs of one case; `planned` are the shapes that the plan was made for."""
    if op == "DiagonalScan":
        import_module("neurocompile.ops.diagonal_scan.triton_launch").PROGRAMS = programs
    plan = planner(op)([tuple(shape) for shape in planned], operand, 87, attributes)
    for tensor, shape in zip(plan.inputs, shapes, strict=True):
        assert all(fixed in (None, length) for fixed, length in zip(tensor.shape, shape, strict=True))
    draw = torch.Generator().manual_seed(sum(map(sum, shapes)))
    given = []
    for tensor, shape in zip(plan.inputs, shapes, strict=True):
        value = torch.randn(shape, generator=draw)
        if tensor.name == "log_f":
            value = torch.nn.functional.logsigmoid(1.5 * value + 1)
        elif tensor.name in ("a_re", "a_im"):
            value = 0.6 * value.clamp(-1, 1)
        elif tensor.name == "decay":
            value = value.abs().clamp(max=1)
        given.append(value.to(getattr(torch, tensor.dtype)))

    def fresh(tensors):
        sizes = [[evaluate(size, shapes) for size in tensor.shape] for tensor in tensors]
        return [torch.full(size, torch.nan) for size in sizes]

    memory = {"input": given, "output": fresh(plan.outputs), "scratch": fresh(plan.scratch)}
    for launch in plan.launches:
        grid = evaluate(launch.grid, shapes)
        if not grid:
            continue
        kernel = kernel_of(launch)
        visible = [name for name in kernel.arg_names if name not in launch.constants]
        values = constants_of(launch)
        for argument, places in ordered_arguments(plan, launch, visible):
            if argument.kind == "int32":
                value = evaluate(argument.value, shapes)
            else:
                value = memory[argument.kind.removesuffix("_in")][argument.index]
            values |= {visible[place]: value for place in places}
        kernel[(grid,)](**values, num_warps=launch.warps, num_stages=launch.stages)

    reference = getattr(import_module(f"neurocompile.ops.{PLANNED[op]}.reference"), PLANNED[op])
    # Spikes are the same in float32 or they are wrong.
    wide = [value if op == "LIF" else value.double() for value in given]
    if op == "LIF":
        rest = attributes.get("v_reset") if attributes.get("hard") else None
        wide.append(Neuron(attributes.get("threshold", 1.0), rest, bool(attributes.get("strict"))))
    exact = reference(*wide)
    exact = exact if isinstance(exact, tuple) else (exact,)
    return [relative(got, want, 0.0) for got, want in zip(memory["output"], exact, strict=True)]


if __name__ == "__main__":
    print(json.dumps([run(**case) for case in json.load(sys.stdin)]))
