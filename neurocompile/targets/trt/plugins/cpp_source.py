"""C++ plugins: the hand-written class beside this file, and the images as the constants it reads.

The class (`cpp/plugin.cpp`) is the same for all ops; `images.cpp`, written here, is all that differs. It compiles with
the headers of TensorRT 10.3 to 11 and of CUDA, and links with neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files

from runtime.errors import InternalError
from runtime.plugins.image import TYPES, Argument, Input, Launch, Output, PluginImage
from runtime.plugins.sizes import Size, fold

FOLDER = "plugins/cpp"
"""Where the sources lie in a bundle."""

GENERATED = "images.cpp"
MOST = {"inputs": 16, "made": 16, "arguments": 32, "launches": 8, "depth": 16, "axes": 8}
"""What `cpp/table.h` has room for."""

_STEPS = {"+": "kAdd", "-": "kSubtract", "*": "kMultiply", "//": "kFloor", "cdiv": "kCeiling"}
_STEPS |= {"max": "kLarger", "min": "kSmaller"}
_TYPES = {"float32": "kFLOAT", "bfloat16": "kBF16", "float16": "kHALF", "int32": "kINT32"}
_KINDS = {"input": "kInput", "output": "kOutput", "scratch": "kScratch", "scratch_in": "kScratch", "int32": "kInteger"}
_PIECE = 8000
"""Characters of a string literal; compilers promise no more than 65536 for one."""


def sources(images: Sequence[PluginImage]) -> dict[str, bytes]:
    """All files of the library.

    Args:
        images: One per plugin.

    Returns:
        Path in the bundle -> C++.
    """
    folder = files("neurocompile.targets.trt.plugins") / "cpp"
    written = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.endswith((".cpp", ".h"))}
    written[GENERATED] = render(images).encode()
    return {f"{FOLDER}/{name}": written[name] for name in sorted(written)}


def render(images: Sequence[PluginImage]) -> str:
    """`images.cpp`.

    Args:
        images: One per plugin, all of different names.

    Raises:
        InternalError: If an image needs more than the class has room for.
    """
    if not images or len({image.name for image in images}) != len(images):
        raise InternalError("a library of plugins wants images, each once")
    parts = [_image(number, image) for number, image in enumerate(images)]
    rows = [
        f"    {{{_text(image.name)}, {_text(image.version)}, {_text(image.namespace)}, {image.capability},"
        f" i{n}::inputs, {len(image.inputs)}, i{n}::outputs, {len(image.outputs)},"
        f" {f'i{n}::scratch' if image.scratch else 'nullptr'}, {len(image.scratch)},"
        f" i{n}::launches, {len(image.launches)}}},"
        for n, image in enumerate(images)
    ]
    head = f"// {', '.join(sorted({image.op for image in images}))}: kernels by {images[0].made_by or 'hand'}."
    return "\n".join(
        (
            f"{head} Generated; see table.h.",
            '#include "table.h"\n\nnamespace neurocompile {\nnamespace {\n',
            *parts,
            "}  // namespace\n\nextern Image const kImages[] = {",
            *rows,
            f"}};\nextern int32_t const kImageCount = {len(images)};\n\n}}  // namespace neurocompile\n",
        )
    )


def _image(number: int, image: PluginImage) -> str:
    _check(image)
    lines = [f"namespace i{number} {{  // {image.name}"]
    for place, given in enumerate(image.inputs):
        lengths = ", ".join("kAnyLength" if length is None else str(length) for length in given.shape)
        lines.append(f"constexpr int64_t lengths{place}[] = {{{lengths or '0'}}};")
    lines += ["constexpr Input inputs[] = {", *(_input(place, given) for place, given in enumerate(image.inputs)), "};"]
    aliased = dict(image.aliased)
    lines += _made("output", image.outputs, aliased)
    if image.scratch:
        lines += _made("scratch", image.scratch, {})
    for place, launch in enumerate(image.launches):
        lines += _launch(place, launch)
    rows = (_launch_row(place, launch) for place, launch in enumerate(image.launches))
    lines += ["constexpr Launch launches[] = {", *rows, "};", f"}}  // namespace i{number}\n"]
    return "\n".join(lines)


def _input(place: int, given: Input) -> str:
    return f"    {{{_text(given.name)}, nvinfer1::DataType::{_TYPES[given.dtype]}, {given.rank}, lengths{place}}},"


def _made(kind: str, tensors: Sequence[Output], aliased: dict[int, int]) -> Iterator[str]:
    name = "outputs" if kind == "output" else kind
    for place, made in enumerate(tensors):
        for axis, size in enumerate(made.shape):
            yield _terms(f"{kind}{place}_{axis}", size)
        row = ", ".join(_size(f"{kind}{place}_{axis}", size) for axis, size in enumerate(made.shape))
        yield f"constexpr Size {kind}{place}[] = {{{row or '{nullptr, 0}'}}};"
    yield f"constexpr Made {name}[] = {{"
    for place, made in enumerate(tensors):
        shared = str(aliased[place]) if place in aliased else "kNotAliased"
        of_type = f"nvinfer1::DataType::{_TYPES[made.dtype]}, {TYPES[made.dtype]}"
        yield f"    {{{_text(made.name)}, {of_type}, {len(made.shape)}, {kind}{place}, {shared}}},"
    yield "};"


def _launch(place: int, launch: Launch) -> Iterator[str]:
    for number, argument in enumerate(launch.arguments):
        if argument.kind == "int32":
            yield _terms(f"value{place}_{number}", argument.value)
    for axis, size in zip("xyz", launch.grid, strict=True):
        yield _terms(f"grid{place}_{axis}", size)
    yield f"constexpr Argument arguments{place}[] = {{"
    yield from (_argument(f"value{place}_{number}", argument) for number, argument in enumerate(launch.arguments))
    yield "};"
    yield f"constexpr char ptx{place}[] ="
    pieces = [launch.ptx[begin : begin + _PIECE] for begin in range(0, len(launch.ptx), _PIECE)]
    yield "\n".join(f'R"ptx({piece})ptx"' for piece in pieces) + ";"


def _launch_row(place: int, launch: Launch) -> str:
    grid = ", ".join(_size(f"grid{place}_{axis}", size) for axis, size in zip("xyz", launch.grid, strict=True))
    head = f"{_text(launch.entry)}, ptx{place}, arguments{place}, {len(launch.arguments)}"
    return f"    {{{head}, {{{grid}}}, {launch.threads}, {launch.shared}}},"


def _argument(name: str, argument: Argument) -> str:
    value = _size(name, argument.value) if argument.kind == "int32" else "{nullptr, 0}"
    return f"    {{Kind::{_KINDS[argument.kind]}, {argument.index}, {value}}},"


def _postfix(size: Size) -> list[str]:
    return fold(
        size,
        lambda value: [f"{{Step::kNumber, 0, {value}}}"],
        lambda i, axis: [f"{{Step::kLength, {i}, {axis}}}"],
        lambda name, left, right: [*left, *right, f"{{Step::{_STEPS[name]}, 0, 0}}"],
    )


def _terms(name: str, size: Size) -> str:
    return f"constexpr Term {name}[] = {{{', '.join(_postfix(size))}}};"


def _size(name: str, size: Size) -> str:
    return f"{{{name}, {len(_postfix(size))}}}"


def _text(text: str) -> str:
    if not (text.isascii() and text.isprintable()) or '"' in text or "\\" in text:
        raise InternalError(f"{text!r} cannot be the name of a plugin's part")
    return f'"{text}"'


def _check(image: PluginImage) -> None:
    if not (image.inputs and image.outputs and image.launches):
        raise InternalError(f"plugin {image.name} takes, makes or launches nothing")
    tensors: list[Input | Output] = [*image.inputs, *image.outputs, *image.scratch]
    sizes = [size for tensor in (*image.outputs, *image.scratch) for size in tensor.shape]
    sizes += [size for launch in image.launches for size in launch.grid]
    sizes += [argument.value for launch in image.launches for argument in launch.arguments]
    found = {
        "inputs": len(image.inputs),
        "made": max(len(image.outputs), len(image.scratch)),
        "arguments": max(len(launch.arguments) for launch in image.launches),
        "launches": len(image.launches),
        "depth": max(map(_depth, sizes)),
        "axes": max(len(tensor.shape) for tensor in tensors),
    }
    for what, count in found.items():
        if count > MOST[what]:
            raise InternalError(
                f"plugin {image.name} needs {count} {what}, and the C++ class has room for {MOST[what]}"
            )
    if any(')ptx"' in launch.ptx for launch in image.launches):
        raise InternalError(f"plugin {image.name} has code that cannot be written as a string")


def _depth(size: Size) -> int:
    """How many sizes are stacked at most while `size` is computed in postfix order."""
    return fold(size, lambda value: 1, lambda i, axis: 1, lambda name, left, right: max(left, 1 + right))
