"""From plans to images: Triton's compiler, the parameter list of plugins, machine code. No GPU is needed."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from neurocompile.ops.plugin_plan import KernelLaunch, PluginPlan
from neurocompile.targets.trt.plugins import ptx
from neurocompile.targets.trt.plugins.flow import flow
from runtime.errors import InternalError, UserError
from runtime.plugins.image import Argument, Launch, PluginImage

PTX_VERSIONS = {75: 80, 80: 80, 86: 80, 87: 80, 89: 80, 90: 80, 100: 86, 103: 88, 110: 90, 120: 87, 121: 88}
"""The oldest PTX version that we write, by compute capability; a driver of the CUDA release that brought it reads it:
8.0 is CUDA 12.0, 8.6 is 12.7, 8.7 is 12.8, 8.8 is 12.9, 9.0 is 13.0."""

SHARED_LIMIT = 48 * 1024
"""More needs a call of the driver that quick-deployable plugins are not known to make."""

_TYPES = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16", "int32": "*i32"}
_READ, _INTEGER, _WRITTEN = range(3)


def obstacle() -> str:
    """Empty, or why kernels cannot be compiled here."""
    return "" if find_spec("triton") else "Triton is not installed (pip install 'neurocompile[gpu]')"


def compile_plan(plan: PluginPlan, capability: int) -> tuple[PluginImage, list[dict[str, Any]]]:
    """Compiles all kernels of a plan.

    Args:
        plan: What to launch.
        capability: A key of `PTX_VERSIONS`.

    Returns:
        The image, and per launch what the assembler reports.

    Raises:
        UserError: If a kernel needs more shared memory than plugins may have.
        InternalError: If Triton's output is not of the form that is known.
    """
    import triton

    made = [_compile(plan, launch, capability) for launch in plan.launches]
    image = PluginImage(
        op=plan.op,
        inputs=plan.inputs,
        outputs=plan.outputs,
        scratch=plan.scratch,
        launches=tuple(launch for launch, _ in made),
        aliased=plan.aliased,
        capability=capability,
        ptx_version=PTX_VERSIONS[capability],
        made_by=f"triton {triton.__version__}",
    )
    return image, [report for _, report in made]


def kernel_of(launch: KernelLaunch) -> Any:
    """What `triton.jit` made."""
    module, _, name = launch.kernel.partition(":")
    return getattr(import_module(module), name)


def constants_of(launch: KernelLaunch) -> dict[str, Any]:
    """The launch's constants as Triton takes them: types by their name become Triton's."""
    import triton.language as tl

    return {key: getattr(tl, value) if key == "ACC" else value for key, value in launch.constants.items()}


def _compile(plan: PluginPlan, launch: KernelLaunch, capability: int) -> tuple[Launch, dict[str, Any]]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = kernel_of(launch)
    types = {tensor.name: tensor.dtype for group in (plan.inputs, plan.outputs, plan.scratch) for tensor in group}
    missing = set(kernel.arg_names) ^ {*launch.tensors, *launch.integers, *launch.constants}
    if missing:
        raise InternalError(f"the plan of {launch.kernel} and the kernel differ in {', '.join(sorted(missing))}")
    signature = {
        name: _TYPES[types[launch.tensors[name]]]
        if name in launch.tensors
        else "i32"
        if name in launch.integers
        else "constexpr"
        for name in kernel.arg_names
    }
    # TensorRT allocates tensors at multiples of 256.
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if name in launch.tensors}
    binary = triton.compile(
        ASTSource(kernel, signature, constexprs=constants_of(launch), attrs=aligned),
        target=GPUTarget("cuda", capability, 32),
        options={
            "num_warps": launch.warps,
            "num_stages": launch.stages,
            "enable_fp_fusion": launch.fuse,
            "ptx_version": PTX_VERSIONS[capability],
        },
    )
    about = binary.metadata
    for name in ("global_scratch_size", "profile_scratch_size"):
        if getattr(about, name):
            raise InternalError(f"{launch.kernel} wants {name} of {getattr(about, name)} bytes, which no plugin has")
    if about.shared > SHARED_LIMIT:
        raise UserError(
            f"a kernel of {plan.op} needs {about.shared} bytes of shared memory on sm_{capability}, and plugins have "
            f"{SHARED_LIMIT}; export without plugins"
        )
    visible = [name for name in kernel.arg_names if signature[name] != "constexpr"]
    _check_order(binary.asm["ttir"], visible)
    groups = ordered_arguments(plan, launch, visible)
    hidden = len(ptx.parameters(binary.asm["ptx"])) - len(visible)
    text = ptx.without_debug(binary.asm["ptx"])
    text = ptx.with_signature(text, [places for _, places in groups], hidden)
    if not launch.fuse and re.search(r"\b(?:mul|add|sub)\.f(?:32|64)\b|\bfma\.", text):
        raise InternalError(f"{launch.kernel} has products and sums that an assembler may fuse")
    cubin, report = ptx.assemble(text, capability)
    arguments = tuple(argument for argument, _ in groups)
    _check_directions(launch.kernel, text, arguments)
    made = Launch(about.name, text, cubin, arguments, (launch.grid, 1, 1), about.num_warps * 32, about.shared)
    return made, {"kernel": about.name, "warps": about.num_warps, **report, "shared": about.shared}


def _check_order(ttir: str, visible: list[str]) -> None:
    """That the compiler numbers parameters as we do."""
    match = re.search(r"tt\.func public @\w+\((.*)", ttir)
    found = re.findall(r"%(\w+): (?:!tt\.ptr|i32)", match[1]) if match else []
    if found != visible:
        raise InternalError(f"Triton numbers the parameters {found}, not {visible}")


def _check_directions(kernel: str, text: str, arguments: tuple[Argument, ...]) -> None:
    """That the code reads through the pointers that are said to be read, and writes through the others."""
    declared = list(zip(ptx.parameters(text), arguments, strict=True))
    for parameter, argument in declared:
        if parameter.kind != ("int32" if argument.kind == "int32" else "pointer"):
            raise InternalError(f"{kernel} has the {parameter.kind} {parameter.name} where its plan has {argument}")
    found = flow(text)
    integers = {parameter.name for parameter, argument in declared if argument.kind == "int32"}
    read = {parameter.name for parameter, argument in declared if argument.kind in ("input", "scratch_in")}
    written = {parameter.name for parameter, _ in declared} - integers - read
    if found.read - integers != read or found.written - integers != written:
        raise InternalError(f"{kernel} reads through {sorted(found.read)} and writes through {sorted(found.written)}")


def ordered_arguments(plan: PluginPlan, launch: KernelLaunch, visible: list[str]) -> list[tuple[Argument, list[int]]]:
    """The arguments of a launch in the order of an image: read, integers, written.

    Args:
        plan: Which the launch is of.
        launch: The launch.
        visible: The kernel's parameters that are no constants, in its order.

    Returns:
        Each argument with the positions in `visible` that get it.
    """
    groups: dict[Argument, tuple[int, list[int]]] = {}
    integers = []
    for place, name in enumerate(visible):
        if name in launch.integers:
            integers.append((Argument("int32", 0, launch.integers[name]), [place]))
            continue
        tensor = launch.tensors[name]
        written = tensor in launch.writes
        argument = _pointer(plan, tensor, written)
        groups.setdefault(argument, (_WRITTEN if written else _READ, []))[1].append(place)
    pointers = {kind: [(a, places) for a, (of, places) in groups.items() if of == kind] for kind in (_READ, _WRITTEN)}
    return [*pointers[_READ], *integers, *pointers[_WRITTEN]]


def _pointer(plan: PluginPlan, name: str, written: bool) -> Argument:
    kinds = (("output", plan.outputs),) if written else (("input", plan.inputs),)
    for kind, tensors in (*kinds, ("scratch" if written else "scratch_in", plan.scratch)):
        for index, tensor in enumerate(tensors):
            if tensor.name == name:
                return Argument(kind, index)
    raise InternalError(
        f"the plan of {plan.op} has no tensor {name!r} that a kernel could {'write' if written else 'read'}"
    )
