"""What the TensorRT versions can read, and which of them a device has."""

from __future__ import annotations

import re
from dataclasses import dataclass

from neurocompile.targets.spec import TargetSpec
from runtime.errors import UserError


@dataclass(frozen=True)
class Version:
    """What is taken for granted of a TensorRT version, by its documentation.

    Attributes:
        opset: The newest operator set that its parser reads.
        gelu: Whether it reads the operator Gelu.
    """

    opset: int
    gelu: bool


VERSIONS = {"10.3": Version(20, gelu=False), "10": Version(20, gelu=False), "11": Version(22, gelu=True)}
"""`--tensorrt` -> what it reads. `10` is any 10.x."""

JETSON = {"jetson-orin": (87, "10.3"), "jetson-thor": (110, "10")}
"""Board -> compute capability, and the TensorRT of its JetPack unless `--tensorrt` says otherwise."""

CAPABILITIES = (75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121)
DEFAULT = "11"
BFLOAT16_FROM = 80
FP8_FROM = 89


def capability(device: str) -> int | None:
    """The compute capability of a device, `None` for `native`: that of the machine that will build.

    Raises:
        UserError: If there is no such device.
    """
    if device == "native":
        return None
    if device in JETSON:
        return JETSON[device][0]
    named = re.fullmatch(r"sm(\d+)", device)
    if named is None or int(named[1]) not in CAPABILITIES:
        known = ", ".join(["native", *JETSON, *(f"sm{number}" for number in CAPABILITIES)])
        raise UserError(f"TensorRT target has no device {device!r}; these exist: {known}")
    return int(named[1])


def version_of(target: TargetSpec) -> str:
    """The TensorRT version to export for: `--tensorrt`, or what the device has.

    Raises:
        UserError: If it is none of `VERSIONS`.
    """
    if not target.tensorrt:
        return JETSON[target.device][1] if target.device in JETSON else DEFAULT
    if target.tensorrt not in VERSIONS:
        raise UserError(f"--tensorrt {target.tensorrt} is none of {', '.join(VERSIONS)}")
    return target.tensorrt


def low_of(target: TargetSpec) -> str:
    """The precision of what is neither float32 nor 8 bits: bf16 for 8-bit targets, fp16 where the GPU has no bf16."""
    if target.dtype not in ("int8", "fp8"):
        return target.dtype
    number = capability(target.device)
    return "fp16" if number is not None and number < BFLOAT16_FROM else "bf16"


def least_capability(target: TargetSpec) -> int | None:
    """The oldest GPU that computes in the target's precisions, `None` if any does."""
    return FP8_FROM if target.dtype == "fp8" else BFLOAT16_FROM if low_of(target) == "bf16" else None


def check_device(target: TargetSpec) -> None:
    """Raises `UserError` if the device does not exist or cannot compute in the target's precision."""
    version_of(target)
    number = capability(target.device)
    if target.dtype == "fp8" and number is not None and number < FP8_FROM:
        raise UserError(
            f"sm_{number} cannot compute in fp8, sm_{FP8_FROM} was the first; export for trt-int8@{target.device}"
        )
    if target.dtype == "bf16" and number is not None and number < BFLOAT16_FROM:
        raise UserError(f"sm_{number} cannot compute in bfloat16; export for trt-fp16@{target.device}")
