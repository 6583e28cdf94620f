"""PTX as Triton writes it, made into what a plugin embeds: a stated parameter list and nothing of this machine.

Triton ends every kernel's parameter list with pointers of its own (scratch memory of the launch and of its profiler).
TensorRT passes none, so they are cut, after it was found that no instruction refers to them; the rest is put in the
order that TensorRT passes: pointers that are read, integers, pointers that are written. Parameters are called by name,
so the order of their declarations is all there is to change.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InternalError

_ENTRY = re.compile(r"(\.visible \.entry (\w+)\()([^)]*)(\))")
_DEBUG = re.compile(r"^\s*(?:\.loc\s|\.file\s|//).*\n|[ \t]+//.*$", re.M)
_SECTION = re.compile(r"^\s*\.section\s+\.debug\w*\s*\{.*?^\s*\}\s*$\n?", re.M | re.S)
_LABEL = re.compile(r"^(\$L__(?:tmp|func_begin|func_end)\d+):\s*\n", re.M)
SPACES = {".u64": "pointer", ".u32": "int32"}


@dataclass(frozen=True)
class Parameter:
    """One declared parameter.

    Attributes:
        name: As instructions call it.
        kind: `pointer` or `int32`.
    """

    name: str
    kind: str


def parameters(ptx: str) -> list[Parameter]:
    """The parameters of the one kernel in a PTX text, in order.

    Raises:
        InternalError: If there is another number of kernels, or a parameter of another type.
    """
    found = []
    for line in filter(None, (line.strip() for line in _entry(ptx)[3].split(","))):
        kind = SPACES.get(line.split()[1])
        if kind is None:
            raise InternalError(f"a kernel has the parameter {line!r}, which is neither a pointer nor a 32-bit integer")
        found.append(Parameter(line.split()[-1], kind))
    return found


def entry_name(ptx: str) -> str:
    """The kernel's name."""
    return _entry(ptx)[2]


def target(ptx: str) -> str:
    """The chip, e.g. `sm_90a`."""
    match = re.search(r"^\.target (sm_\w+)", ptx, re.M)
    if match is None:
        raise InternalError("a PTX text names no target")
    return match[1]


def with_signature(ptx: str, kept: list[list[int]], hidden: int) -> str:
    """Rewrites the parameter list.

    Args:
        ptx: As Triton wrote it.
        kept: The new parameters in order, each as the old ones that it stands for, by position; several where
            they get the same value.
        hidden: How many parameters at the end are dropped.

    Raises:
        InternalError: If an instruction refers to one that is dropped, or one would be lost.
    """
    match, old = _entry(ptx), parameters(ptx)
    lines = [line.strip() for line in match[3].split(",") if line.strip()]
    used = sorted(place for places in kept for place in places)
    if used != list(range(len(old) - hidden)):
        raise InternalError(f"a kernel has {len(old)} parameters, {hidden} hidden, and {len(used)} were given")
    head, tail = ptx[: match.start(3)], ptx[match.end(3) :]
    for parameter in old[len(old) - hidden :]:
        if re.search(rf"\b{parameter.name}\b", head + tail):
            raise InternalError(f"an instruction refers to the hidden parameter {parameter.name}")
    for first, *others in kept:
        for other in others:
            tail = re.sub(rf"\b{old[other].name}\b", old[first].name, tail)
    declared = ",\n\t".join(lines[places[0]] for places in kept)
    return f"{head}\n\t{declared}\n{tail}"


def with_extra_pointers(ptx: str, after: int, count: int) -> str:
    """Declares pointers that no instruction refers to.

    Args:
        ptx: From `with_signature`.
        after: How many parameters come before them.
        count: How many.
    """
    match = _entry(ptx)
    lines = [line.strip() for line in match[3].split(",") if line.strip()]
    lines[after:after] = [f".param .u64 .ptr .global .align 1 {match[2]}_unused_{number}" for number in range(count)]
    declared = ",\n\t".join(lines)
    return f"{ptx[: match.start(3)]}\n\t{declared}\n{ptx[match.end(3) :]}"


def without_debug(ptx: str) -> str:
    """Leaves out lines of the source, comments and debug sections; they name this machine's folders."""
    text = _SECTION.sub("", ptx)
    text = _DEBUG.sub("", text)
    unused = {label for label in _LABEL.findall(text) if len(re.findall(rf"{re.escape(label)}\b", text)) == 1}
    text = _LABEL.sub(lambda match: "" if match[1] in unused else match[0], text)
    text = re.sub(r"^\.target (sm_\w+), debug", r".target \1", text, flags=re.M)
    return re.sub(r"\n\s*\n+", "\n", text).strip() + "\n"


def assemble(ptx: str, capability: int) -> tuple[bytes, dict[str, int]]:
    """Machine code by the assembler that Triton brings.

    Args:
        ptx: The text.
        capability: 87 for compute capability 8.7, and so on; chooses the assembler's version as Triton does.

    Returns:
        The cubin, and what the assembler reports: `registers` of a thread, bytes it `spills`, bytes of static
        `shared` memory.

    Raises:
        InternalError: If the assembler refuses the text.
    """
    from triton.backends.nvidia.compiler import get_ptxas

    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx)
        command = [get_ptxas(capability).path, "-v", f"--gpu-name={target(ptx)}", "-o", str(made), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise InternalError(f"the assembler refuses the PTX of {entry_name(ptx)}: {done.stderr.strip()[:300]}")
        numbers = {"registers": r"Used (\d+) registers", "shared": r"(\d+) bytes smem"}
        report = {key: int((re.search(text, done.stderr) or ["", "0"])[1]) for key, text in numbers.items()}
        report["spills"] = sum(map(int, re.findall(r"(\d+) bytes spill (?:stores|loads)", done.stderr)))
        return made.read_bytes(), report


def _entry(ptx: str) -> re.Match[str]:
    found = list(_ENTRY.finditer(ptx))
    if len(found) != 1:
        raise InternalError(f"a PTX text holds {len(found)} kernels instead of one")
    return found[0]
