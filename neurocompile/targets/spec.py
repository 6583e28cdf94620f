"""What `--target` says: `backend "-" dtype ["@" device]`, one parser for every command."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import UserError

BACKENDS = ("onnx", "cpu", "cuda", "trt")
DTYPES = ("fp32", "bf16", "fp16", "int8", "fp8")


@dataclass(frozen=True)
class TargetSpec:
    """Where a program runs and in which precision.

    Attributes:
        backend: One of `BACKENDS`.
        dtype: One of `DTYPES`.
        device: `native`, an instruction set level, a board, or `smNN`.
        tensorrt: What `--tensorrt` says; empty where it was not given.
        plugins: What `--plugins` says, for targets of TensorRT; empty where it was not given.
        smooth: Whether `--smooth` was given: no single event is to take long, and answers may lag.
    """

    backend: str
    dtype: str
    device: str = "native"
    tensorrt: str = ""
    smooth: bool = False
    plugins: str = ""

    @property
    def name(self) -> str:
        """The target without its device."""
        return f"{self.backend}-{self.dtype}"

    def __str__(self) -> str:
        return self.name + ("" if self.device == "native" else f"@{self.device}")


def parse_target(text: str, known: tuple[str, ...]) -> TargetSpec:
    """Reads a target's name.

    Args:
        text: E.g. `onnx-fp32` or `cpu-int8@jetson-orin`.
        known: Names of the targets that exist, without device.

    Returns:
        The parsed target.

    Raises:
        UserError: If it is malformed or does not exist; lists what exists.
    """
    name, _, device = text.partition("@")
    backend, _, dtype = name.partition("-")
    if name not in known:
        reason = "is not built by this version" if backend in BACKENDS and dtype in DTYPES else "is no target"
        raise UserError(f"{text!r} {reason}; targets are BACKEND-DTYPE[@DEVICE], and these exist: {', '.join(known)}")
    return TargetSpec(backend, dtype, device or "native")
