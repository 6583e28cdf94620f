"""An image of several launches as images of one launch each, in series: quick-deployable plugins launch one kernel.

Memory between launches becomes outputs of one plugin and inputs of another. Lengths were known from the shapes of the
op's own inputs; a part sees only what it reads, so it may be given further tensors of which it reads nothing but the
shape: TensorRT passes their pointers too, and the kernel gets parameters for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from neurocompile.targets.trt.plugins import ptx
from runtime.errors import InternalError
from runtime.plugins.image import Argument, Input, Launch, Output, PluginImage
from runtime.plugins.sizes import Dim, Op, Size


@dataclass(frozen=True)
class Part:
    """One plugin of a series.

    Attributes:
        image: Its image, with one launch.
        inputs: Its inputs by their names in the whole image.
        outputs: Its outputs likewise.
    """

    image: PluginImage
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def series(image: PluginImage) -> tuple[Part, ...]:
    """Cuts an image into parts that are to be executed in order.

    Args:
        image: Of any number of launches.

    Raises:
        InternalError: If launches write one tensor twice, which plugins in series cannot.
    """
    parts = tuple(_part(image, number) for number in range(len(image.launches)))
    written = [name for part in parts for name in part.outputs]
    if len(written) != len(set(written)):
        raise InternalError(f"launches of {image.name} write one tensor twice")
    return parts


def _part(image: PluginImage, number: int) -> Part:
    launch = image.launches[number]
    reads = [a for a in launch.arguments if a.kind in ("input", "scratch_in")]
    writes = [a for a in launch.arguments if a.kind in ("output", "scratch")]
    given = {a.index: place for place, a in enumerate(reads) if a.kind == "input"}
    sizes = [*launch.grid, *(a.value for a in launch.arguments)]
    sizes += [size for a in writes for size in _tensor(image, a).shape]  # type: ignore[misc]
    extra = sorted({found for size in sizes for found in _inputs(size)} - set(given))
    reads += [Argument("input", index) for index in extra]
    given |= {index: len(reads) - len(extra) + place for place, index in enumerate(extra)}
    arguments = [Argument("input", place) for place in range(len(reads))]
    arguments += [replace(a, value=_moved(a.value, given)) for a in launch.arguments if a.kind == "int32"]
    arguments += [Argument("output", place) for place in range(len(writes))]
    code, cubin = launch.ptx, launch.cubin
    if extra:
        code = ptx.with_extra_pointers(launch.ptx, after=len(reads) - len(extra), count=len(extra))
        cubin, _ = ptx.assemble(code, image.capability)
    x, y, z = (_moved(size, given) for size in launch.grid)
    single = Launch(launch.entry, code, cubin, tuple(arguments), (x, y, z), launch.threads, launch.shared)
    whole = len(image.launches) == 1
    part = replace(
        image,
        op=image.op if whole else f"{image.op}{number + 1}",
        inputs=tuple(_as_input(_tensor(image, a)) for a in reads),
        outputs=tuple(
            replace(tensor, shape=tuple(_moved(size, given) for size in tensor.shape))
            for tensor in (_made(image, a) for a in writes)
        ),
        scratch=(),
        launches=(single,),
        aliased=_aliased(image, reads, writes),
    )
    return Part(part, tuple(_tensor(image, a).name for a in reads), tuple(_tensor(image, a).name for a in writes))


def _aliased(image: PluginImage, reads: list[Argument], writes: list[Argument]) -> tuple[tuple[int, int], ...]:
    made, given = ([(a.kind, a.index) for a in arguments] for arguments in (writes, reads))
    return tuple(
        (made.index(("output", output)), given.index(("input", source)))
        for output, source in image.aliased
        if ("output", output) in made and ("input", source) in given
    )


def _tensor(image: PluginImage, argument: Argument) -> Input | Output:
    return image.inputs[argument.index] if argument.kind == "input" else _made(image, argument)


def _made(image: PluginImage, argument: Argument) -> Output:
    return (image.outputs if argument.kind == "output" else image.scratch)[argument.index]


def _as_input(tensor: Input | Output) -> Input:
    if isinstance(tensor, Input):
        return tensor
    return Input(tensor.name, tensor.dtype, tuple(size if isinstance(size, int) else None for size in tensor.shape))


def _inputs(size: Size) -> set[int]:
    if isinstance(size, Op):
        return _inputs(size.left) | _inputs(size.right)
    return {size.input} if isinstance(size, Dim) else set()


def _moved(size: Size, places: dict[int, int]) -> Size:
    """The size with inputs renumbered."""
    if isinstance(size, Op):
        return Op(size.name, _moved(size.left, places), _moved(size.right, places))
    return Dim(places[size.input], size.axis) if isinstance(size, Dim) else size
