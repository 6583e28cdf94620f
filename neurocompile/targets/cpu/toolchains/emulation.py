"""Libraries for other processors, run in an emulator.

That takes QEMU's user mode, a C library for that processor, and a program that serves a session through pipes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurocompile.targets.cpu.toolchains.devices import Toolchain
from runtime.errors import InternalError
from runtime.events.container import Events
from runtime.program import ProgramSpec
from runtime.session import Session

PROGRAM = Path(__file__).parents[1] / "csrc" / "served.c"
LOADERS = {"aarch64": "lib/ld-linux-aarch64.so.1"}
PACKAGES = {"aarch64": "libc6-arm64-cross"}
NEAREST = {"aarch64": "cortex-a53", "jetson-orin": "cortex-a76", "jetson-thor": "max,sve-max-vq=1"}
"""QEMU's processor with the device's instructions and no others, or else with the fewest others."""


@dataclass(frozen=True)
class Emulator:
    """QEMU for one architecture.

    Attributes:
        command: It and its arguments.
        name: For reports.
    """

    command: tuple[str, ...]
    name: str


def find_emulator(architecture: str, device: str) -> Emulator | str:
    """The emulator for a device, or why there is none."""
    if architecture not in LOADERS:
        return f"no emulator is known for {architecture or 'this processor'}"
    names = (f"qemu-{architecture}", f"qemu-{architecture}-static")
    path = next((path for name in names if (path := shutil.which(name))), None)
    if path is None:
        return f"there is no {names[0]} (Debian: apt install qemu-user-static)"
    places = [os.environ.get("QEMU_LD_PREFIX", ""), f"/usr/{architecture}-linux-gnu", "/"]
    root = next((place for place in places if place and (Path(place) / LOADERS[architecture]).exists()), None)
    if root is None:
        return (
            f"{names[0]} is here, but no C library for {architecture} (Debian: apt install {PACKAGES[architecture]}, "
            "or set QEMU_LD_PREFIX)"
        )
    known = {line.strip() for line in _output([path, "-cpu", "help"]).splitlines()}
    cpu = NEAREST.get(device, "max")
    cpu = cpu if cpu.split(",")[0] in known else "max"
    version = _output([path, "--version"]).split("version ")[-1].split()[0]
    return Emulator((path, "-L", root, "-cpu", cpu), f"{names[0]} {version} -cpu {cpu}")


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


class EmulatedSession(Session):
    """A stream in a library for another processor; see `Session`.

    Args:
        spec: The program's tables.
        files: `libmodel.so`, `model.weights` and `c/neurocompile.h`, as a bundle has them.
        tools: Who compiled the library.
        emulator: From `find_emulator`.
        tick_us: Length of one tick of the events' times in microseconds.

    Raises:
        InternalError: If the library cannot be opened there, or dies.
    """

    def __init__(
        self, spec: ProgramSpec, files: Mapping[str, bytes], tools: Toolchain, emulator: Emulator, tick_us: float = 1.0
    ) -> None:
        self.spec = spec
        self._numbers = {state.name: number for number, state in enumerate(spec.states)}
        folder = tempfile.TemporaryDirectory()
        root = Path(folder.name)
        headers = [name for name in files if name.startswith("c/") and name.endswith(".h")]
        for name in ("libmodel.so", "model.weights", *headers):
            (root / Path(name).name).write_bytes(files[name])
        parts = (str(PROGRAM), str(root / "libmodel.so"), f"-Wl,-rpath,{root}")
        clusters = ("-DNC_CLUSTERS",) if spec.front_end.get("intensity") else ()
        tools.compiler.run("-O1", "-std=c17", *clusters, *tools.flags, f"-I{root}", *parts, "-o", str(root / "served"))
        command = [*emulator.command, str(root / "served"), str(root), repr(tick_us)]
        self._said = (root / "said").open("w+b")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said)
        self.close = weakref.finalize(self, _close, self._process, self._said, folder)
        self._answer()

    @property
    def items(self) -> int:  # type: ignore[override]
        """Items processed since the last `reset`."""
        return self._ask(b"i")[0]

    def reset(self) -> None:
        """See `Session.reset`."""
        self._ask(b"0")

    def settle(self) -> None:
        """See `Session.settle`."""
        self._ask(b"f")

    def push(self, events: Events) -> int:
        """See `Session.push`; the library's refusals are errors of ours here."""
        kinds = ((events.t, np.int64), (events.x, np.uint16), (events.y, np.uint16), (events.p, np.bool_))
        columns = [np.ascontiguousarray(column, kind).tobytes() for column, kind in kinds]
        if events.intensity is not None:
            columns.append(events.intensity.tobytes())
        command = b"m" if events.intensity is None else b"w"
        return self._ask(command + struct.pack("<Q", len(events)) + b"".join(columns))[0]

    def push_event(self, t: int, x: int, y: int, p: bool, intensity: float | None = None) -> int:
        """See `Session.push_event`."""
        if intensity is not None:
            return self.push(Events([t], [x], [y], [p], [intensity]))  # type: ignore[arg-type]
        return self._ask(struct.pack("<cqiiii", b"e", t, x, y, p, 0))[0]

    def readout(self) -> np.ndarray:
        """See `Session.readout`."""
        shape = self.spec.readout.outputs[0].shape
        return np.frombuffer(self._ask(b"a", 4 * int(np.prod(shape)))[1], np.float32).reshape(shape)

    def state(self, name: str) -> np.ndarray:
        """See `Session.state`."""
        spec = self.spec.state(name)
        question = struct.pack("<cI", b"s", self._numbers[name])
        _, data = self._ask(question, spec.size * np.dtype(spec.dtype).itemsize)
        return np.frombuffer(data, spec.dtype).reshape(spec.shape)

    def snapshot(self) -> dict[str, Any]:
        """See `Session.snapshot`; the library's own bytes, for sessions of the same library."""
        self._send(b"g")
        return {"bytes": self._read(self._answer())}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """See `Session.restore`."""
        self._ask(b"p" + snapshot["bytes"])

    def _ask(self, question: bytes, size: int = 0) -> tuple[int, bytes]:
        self._send(question)
        return self._answer(), self._read(size)

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError:
            raise self._death() from None

    def _answer(self) -> int:
        (code,) = struct.unpack("<q", self._read(8))
        if code < 0:
            raise InternalError(f"the library refuses a call in the emulator with code {code}")
        return code

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) != size:
            raise self._death()
        return data

    def _death(self) -> InternalError:
        code = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()
        return InternalError(f"the emulated library stopped with code {code}: {said or 'it said nothing'}")


def _close(process: subprocess.Popen[bytes], said: Any, folder: tempfile.TemporaryDirectory[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # What was still to be written has no reader any more.
                pipe.close()
    process.kill()
    process.wait()
    said.close()
    folder.cleanup()
