"""The code that plugins of TensorRT embed, launched through the CUDA driver as an image says.

TensorRT is not needed: this shows that code, order of arguments, integers, grids and memory between launches are right,
as PTX, which C++ plugins load whole and ahead-of-time plugins hand to TensorRT cut into plugins of one launch, and as
machine code. It does not show what TensorRT makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.driver import Driver
from benchmarks.gpu_checks import Check, Timing, largest_error
from neurocompile.ops.lif.neuron import Neuron
from neurocompile.ops.plugin_plan import PLANNED, planner
from neurocompile.targets.trt.plugins.compiled import compile_plan
from neurocompile.targets.trt.plugins.series import series
from runtime.plugins.image import Output, PluginImage
from runtime.plugins.sizes import evaluate

DEVICE = "cuda"
FORMS = ("PTX", "PTX in series", "machine code")


@dataclass(frozen=True)
class Problem:
    """What is computed.

    Attributes:
        op: The operator.
        shapes: Of its inputs.
        operand: Type of what is multiplied.
        bound: The largest error that passes.
        attributes: The node's.
    """

    op: str
    shapes: tuple[tuple[int, ...], ...]
    operand: str
    bound: float
    attributes: Mapping[str, Any] = field(default_factory=dict)


def scan(batch: int, steps: int, width: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of `diagonal_scan`."""
    return (((batch, steps, width),) * 4) + (((batch, width),) * 2)


def attention(batch: int, steps: int, heads: int, keys: int, width: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of `forgetting_attention`."""
    return ((batch, steps, heads, width), *(((batch, steps, keys, width),) * 2), (batch, steps, heads))


def gated(batch: int, steps: int, heads: int, keys: int, width: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of `gated_linear_attention`."""
    return (*attention(batch, steps, heads, keys, width), (batch, heads, width, width))


# Odd lengths, one launch and several, all types that plugins are exported in; half precision as in the other checks.
PROBLEMS = [
    Problem("DiagonalScan", scan(1, 20, 33), "float32", 1e-5),
    Problem("DiagonalScan", scan(2, 1111, 40), "float32", 1e-5),
    Problem("ForgettingAttention", attention(2, 111, 2, 1, 24), "float32", 1e-5),
    Problem("ForgettingAttention", attention(1, 4097, 2, 1, 32), "bfloat16", 1.6e-2),
    Problem("ForgettingAttention", attention(1, 300, 6, 3, 64), "float16", 2e-3),
    Problem("GatedLinearAttention", gated(2, 111, 2, 1, 24), "float32", 1e-5),
    Problem("GatedLinearAttention", gated(1, 1000, 4, 2, 32), "bfloat16", 1.6e-2),
    Problem("LIF", ((9, 3, 21, 17), (1,), (3, 21, 17)), "float32", 1e-30),
    Problem("LIF", ((9, 777), (9, 777), (777,)), "float32", 1e-30, {"threshold": 0.5, "hard": 1, "strict": 1}),
]


def checks() -> Iterator[Check]:
    """Every problem in every form."""
    for problem in PROBLEMS:
        for form in FORMS:
            name = f"{problem.op} {problem.operand} {problem.shapes[0]} as {form}"
            yield Check(name, problem.bound, partial(_error, problem, form))


def timings() -> Iterator[Timing]:
    """None: the kernels are those that the ops' own timings launch."""
    return iter(())


def execute(image: PluginImage, given: list[Tensor], code: str, driver: Driver) -> list[Tensor]:
    """Does what the docstring of `runtime.plugins.image` says.

    Args:
        image: Of any number of launches.
        given: The inputs, contiguous, on `DEVICE`.
        code: `ptx` or `cubin`.
        driver: Launches.

    Returns:
        The outputs; what no kernel wrote is NaN.
    """
    shapes = [tuple(value.shape) for value in given]
    memory = {"input": given, "output": fresh(image.outputs, shapes), "scratch": fresh(image.scratch, shapes)}
    memory["scratch_in"] = memory["scratch"]
    for launch in image.launches:
        grid = [evaluate(size, shapes) for size in launch.grid]
        if not all(grid):
            continue
        arguments = [
            ("int32", evaluate(a.value, shapes))
            if a.kind == "int32"
            else ("pointer", memory[a.kind][a.index].data_ptr())
            for a in launch.arguments
        ]
        text = launch.ptx.encode() if code == "ptx" else launch.cubin
        driver.launch(driver.function(text, launch.entry), grid, launch.threads, launch.shared, arguments, stream())
    wait()
    return memory["output"]


def execute_series(image: PluginImage, given: list[Tensor], driver: Driver) -> list[Tensor]:
    """The same by plugins of one launch each, as a graph has them."""
    values = {tensor.name: value for tensor, value in zip(image.inputs, given, strict=True)}
    for part in series(image):
        made = execute(part.image, [values[name] for name in part.inputs], "ptx", driver)
        values |= dict(zip(part.outputs, made, strict=True))
    return [values[tensor.name] for tensor in image.outputs]


def _error(problem: Problem, form: str) -> float:
    given = inputs(problem)
    image, driver = image_of(PROBLEMS.index(problem)), _driver()
    if form == "PTX in series":
        made = execute_series(image, given, driver)
    else:
        made = execute(image, given, "ptx" if form == "PTX" else "cubin", driver)
    return largest_error(made, [value.double() for value in definition(problem, given)])


def inputs(problem: Problem) -> list[Tensor]:
    """The problem's inputs on `DEVICE`, the same in every run."""
    draw = torch.Generator().manual_seed(sum(map(sum, problem.shapes)))
    values = []
    for tensor, shape in zip(_plan(problem, 80).inputs, problem.shapes, strict=True):
        value = torch.randn(shape, generator=draw)
        if tensor.name == "log_f":
            value = torch.nn.functional.logsigmoid(1.5 * value + 2)
        elif tensor.name in ("a_re", "a_im"):
            value = 0.6 * value.clamp(-1, 1)
        elif tensor.name == "decay":
            value = value.abs().clamp(max=1)
        values.append(value.to(getattr(torch, tensor.dtype)).to(DEVICE))
    return values


def definition(problem: Problem, given: list[Tensor]) -> list[Tensor]:
    """The op by its definition on the processor: float64, and float32 where a spike is a comparison."""
    folder = PLANNED[problem.op]
    reference = getattr(import_module(f"neurocompile.ops.{folder}.reference"), folder)
    if problem.op == "LIF":
        rest = 0.0 if problem.attributes.get("hard") else None
        neuron = Neuron(problem.attributes.get("threshold", 1.0), rest, bool(problem.attributes.get("strict")))
        return list(reference(*(value.cpu() for value in given), neuron))
    exact = reference(*(value.double().cpu() for value in given))
    return list(exact) if isinstance(exact, tuple) else [exact]


def _plan(problem: Problem, capability: int) -> Any:
    return planner(problem.op)(problem.shapes, problem.operand, capability, problem.attributes)


@cache
def image_of(number: int) -> PluginImage:
    """What a plugin embeds for the problem of that number, compiled for the device."""
    capability = _capability()
    return compile_plan(_plan(PROBLEMS[number], capability), capability)[0]


def stream() -> int:
    """The handle of the stream that is current on `DEVICE`."""
    return torch.cuda.current_stream().cuda_stream if DEVICE == "cuda" else 0


def wait() -> None:
    """Returns when all work on `DEVICE` is done."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def fresh(tensors: Sequence[Output], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Tensors of an image on `DEVICE`, filled with NaN.

    Args:
        tensors: Outputs or scratch memory.
        shapes: Of the inputs.
    """
    sizes = [[evaluate(size, shapes) for size in tensor.shape] for tensor in tensors]
    types = [getattr(torch, tensor.dtype) for tensor in tensors]
    return [torch.full(size, torch.nan, dtype=of, device=DEVICE) for size, of in zip(sizes, types, strict=True)]


@cache
def _driver() -> Driver:
    torch.zeros(1, device=DEVICE)  # Makes torch's context the current one.
    return Driver()


def _capability() -> int:
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor
