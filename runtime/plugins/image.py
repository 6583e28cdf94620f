"""The image of a plugin: tensors, launches, and the kernels' code for one GPU. Plain data, kept as JSON.

Whoever executes an image does this, for given shapes of its inputs:

1. check that every length fixed in `inputs[i].shape` is what it says, and every type;
2. have memory of the shape `outputs[j].shape` for each output and `scratch[k].shape` for each scratch tensor, all
   contiguous, row-major, at addresses that are multiples of 16; memory is not cleared;
3. for each of `launches`, in order on one stream: evaluate `grid`; where a part of it is 0, go to the next launch;
   else launch `entry` with `grid` blocks of `threads` threads (x; y = z = 1), `shared` bytes of dynamic shared
   memory and `arguments` in their order: a 64-bit pointer to an input, output or scratch tensor, or a 32-bit
   integer. A kernel has exactly these parameters. A scratch tensor of no elements is passed as any address, null
   included; it is not read.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from runtime.plugins.sizes import Size, from_json, to_json

FORMAT = 1
TYPES = {"float32": 4, "bfloat16": 2, "float16": 2, "int32": 4}
"""Element types of tensors and their bytes."""

KINDS = ("input", "scratch_in", "int32", "output", "scratch")
"""Kinds of arguments: a pointer that is read (`input`, `scratch_in`), an integer, a pointer that is written."""


@dataclass(frozen=True)
class Input:
    """A tensor that is given.

    Attributes:
        name: For messages and generated code; an identifier.
        dtype: One of `TYPES`.
        shape: Per axis the one length that the kernels were compiled for, or `None` where any will do.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def rank(self) -> int:
        """How many axes."""
        return len(self.shape)


@dataclass(frozen=True)
class Output:
    """A tensor that is made: an output, or memory between launches.

    Attributes:
        name: For messages and generated code; an identifier.
        dtype: One of `TYPES`.
        shape: Its lengths.
    """

    name: str
    dtype: str
    shape: tuple[Size, ...]


@dataclass(frozen=True)
class Argument:
    """One parameter of a kernel.

    Attributes:
        kind: One of `KINDS`.
        index: Of the input, output or scratch tensor.
        value: Of an `int32`.
    """

    kind: str
    index: int = 0
    value: Size = 0


@dataclass(frozen=True)
class Launch:
    """One kernel and how it is launched.

    Attributes:
        entry: The kernel's name in the code.
        ptx: Its PTX text, with no parameters but `arguments`.
        cubin: The same as machine code for the image's `capability`.
        arguments: What is passed: pointers that are read, then integers, then pointers that are written.
        grid: Blocks along x, y, z.
        threads: Threads of a block.
        shared: Bytes of dynamic shared memory, at most 48 KiB.
    """

    entry: str
    ptx: str
    cubin: bytes = field(repr=False)
    arguments: tuple[Argument, ...]
    grid: tuple[Size, Size, Size]
    threads: int
    shared: int


@dataclass(frozen=True)
class PluginImage:
    """All that a plugin is.

    Attributes:
        op: The operation, e.g. `DiagonalScan`.
        inputs: Tensors that are given.
        outputs: Tensors that are made.
        scratch: Memory that launches hand to later launches.
        launches: In order.
        aliased: Output -> the input whose memory it may share.
        capability: Compute capability that the code is for, e.g. 87.
        ptx_version: PTX version of the code, e.g. 85 for 8.5; drivers older than it refuse the PTX.
        made_by: The compiler, for reports.
    """

    op: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    scratch: tuple[Output, ...]
    launches: tuple[Launch, ...]
    aliased: tuple[tuple[int, int], ...] = ()
    capability: int = 0
    ptx_version: int = 0
    made_by: str = ""
    namespace: str = "neurocompile"
    version: str = "1"

    @property
    def name(self) -> str:
        """The plugin's name in TensorRT: the operation and a digest of the image, so that none is taken for another."""
        return f"{self.op}_{hashlib.sha256(self.to_bytes()).hexdigest()[:12]}"

    def to_bytes(self) -> bytes:
        """The image as JSON."""
        table = {"format": FORMAT, **asdict(self)}
        table["outputs"] = [_made(tensor) for tensor in self.outputs]
        table["scratch"] = [_made(tensor) for tensor in self.scratch]
        table["launches"] = [
            {
                **{key: getattr(launch, key) for key in ("entry", "ptx", "threads", "shared")},
                "cubin": base64.b64encode(launch.cubin).decode(),
                "arguments": [[a.kind, a.index, to_json(a.value)] for a in launch.arguments],
                "grid": [to_json(size) for size in launch.grid],
            }
            for launch in self.launches
        ]
        return (json.dumps(table, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> PluginImage:
        """Reads what `to_bytes` wrote.

        Raises:
            ValueError: If it is no image, or one of another format.
        """
        try:
            table = json.loads(data)
            if (found := table.pop("format")) != FORMAT:
                raise ValueError(f"its format is {found}, not {FORMAT}")
            table["inputs"] = tuple(Input(t["name"], t["dtype"], tuple(t["shape"])) for t in table["inputs"])
            for key in ("outputs", "scratch"):
                table[key] = tuple(Output(t["name"], t["dtype"], tuple(map(from_json, t["shape"]))) for t in table[key])
            table["launches"] = tuple(map(_launch, table["launches"]))
            table["aliased"] = tuple((int(output), int(given)) for output, given in table["aliased"])
            image = cls(**table)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"no image of a plugin ({error})") from error
        image._check()
        return image

    def _check(self) -> None:
        counts = {"input": len(self.inputs), "output": len(self.outputs)}
        counts |= dict.fromkeys(("scratch", "scratch_in"), len(self.scratch))
        tensors: list[Input | Output] = [*self.inputs, *self.outputs, *self.scratch]
        for tensor in tensors:
            if tensor.dtype not in TYPES or not tensor.name.isidentifier():
                raise ValueError(f"no image of a plugin (tensor {tensor.name!r} of type {tensor.dtype!r})")
        for launch in self.launches:
            for argument in launch.arguments:
                if argument.kind != "int32" and argument.index not in range(counts.get(argument.kind, 0)):
                    raise ValueError(f"no image of a plugin (argument {argument.kind} {argument.index})")


def _made(tensor: Output) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": [to_json(size) for size in tensor.shape]}


def _launch(table: dict[str, Any]) -> Launch:
    arguments = tuple(Argument(kind, index, from_json(value)) for kind, index, value in table["arguments"])
    x, y, z = map(from_json, table["grid"])
    return Launch(
        str(table["entry"]),
        str(table["ptx"]),
        base64.b64decode(table["cubin"], validate=True),
        arguments,
        (x, y, z),
        int(table["threads"]),
        int(table["shared"]),
    )
