"""ONNX Runtime's providers: whether this installation has them, with which options, and sessions on one of them.

Facts about versions are those of onnxruntime and onnxruntime-gpu 1.31; `LIMITS` states them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime as ort

from runtime.errors import UserError
from runtime.providers import CPU, CUDA, TENSORRT

NAMES = {CPU: "CPUExecutionProvider", CUDA: "CUDAExecutionProvider", TENSORRT: "TensorrtExecutionProvider"}
GRAPH_ID = "gpu_graph_id"
STRICT = "session.disable_cpu_ep_fallback"
FATAL = 4
"""The level of ONNX Runtime's log at which nothing but its own end is written."""

LIBRARIES = {CUDA: "CUDA 13 and cuDNN 9", TENSORRT: "CUDA 13 and TensorRT 10 (libnvinfer.so.10; 11 is not used)"}


@dataclass(frozen=True)
class Provider:
    """One provider and where its tensors live.

    Attributes:
        name: `cpu`, `cuda` or `tensorrt`.
        engines: Folder for TensorRT's engines; they are of the user who built them.
        device: ONNX Runtime's name of the memory.
    """

    name: str
    engines: Path | None = None
    device: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", "cpu" if self.name == CPU else "cuda")

    def attempts(self, stage: str, capture: bool) -> list[tuple[str, list[tuple[str, dict[str, str]]], bool]]:
        """What to try, best first: how it is called, ONNX Runtime's list of providers, and whether all must be theirs.

        TensorRT's provider captures one CUDA graph per session and a stage alternates between two sets of buffers, so
        CUDA graphs are for `cuda`, which tells graphs apart by a number.
        """
        if self.name == CPU:
            return [("processor", [(NAMES[CPU], {})], False)]
        cuda = (NAMES[CUDA], {"use_tf32": "0"})  # float32 that the graph asks for stays float32.
        if self.name == TENSORRT:
            first = (NAMES[TENSORRT], self._tensorrt(stage))
            return [("tensorrt", [first, cuda], True), ("tensorrt and processor", [first, cuda], False)]
        graph = (NAMES[CUDA], {**cuda[1], "enable_cuda_graph": "1"})
        captured = [("cuda graph", [graph], True)] if capture else []
        return [*captured, ("cuda", [cuda], True), ("cuda and processor", [cuda], False)]

    def _tensorrt(self, stage: str) -> dict[str, str]:
        options = {"trt_builder_optimization_level": "3"}
        if self.engines is not None:
            prefix = "".join(letter if letter.isalnum() else "_" for letter in stage)
            kept = {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1"}
            options |= {**kept, "trt_engine_cache_path": str(self.engines), "trt_engine_cache_prefix": prefix}
        return options


def obstacle(name: str) -> str:
    """Why ONNX Runtime cannot compute with a provider here; empty if this installation has it."""
    if NAMES[name] in ort.get_available_providers():
        return ""
    has = ", ".join(short for short, full in NAMES.items() if full in ort.get_available_providers())
    return (
        f"onnxruntime {ort.__version__} as installed here has no provider for {name} (it has {has}); "
        f"pip install onnxruntime-gpu in its place, which needs {LIBRARIES[name]}"
    )


def find_provider(name: str, engines: Path | None = None) -> Provider:
    """The provider called `name`.

    Args:
        name: `cpu`, `cuda` or `tensorrt`.
        engines: Where TensorRT's engines may be kept; made if it is not there.

    Raises:
        UserError: If this installation lacks it, or somebody else could put engines into the folder.
    """
    if reason := obstacle(name):
        raise UserError(reason)
    if name != TENSORRT or engines is None:
        return Provider(name)
    try:
        engines.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = engines.stat()
    except OSError as error:
        raise UserError(f"engines cannot be kept in {engines} ({error.strerror}); set XDG_CACHE_HOME") from error
    if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & 0o022):
        raise UserError(
            f"{engines} can be written by others, and engines can run code; remove it or set XDG_CACHE_HOME"
        )
    return Provider(name, engines)


def open_stage(
    stage: str, graph: bytes, provider: Provider, options: Any, *, capture: bool
) -> tuple[ort.InferenceSession, str]:
    """A session for one graph, on the provider alone where it takes all nodes.

    Args:
        stage: The stage's name, for messages.
        graph: The ONNX file.
        provider: Where.
        options: Makes fresh session options.
        capture: Whether it may run as a CUDA graph.

    Returns:
        The session and how it runs, the first part of `Provider.attempts`.

    Raises:
        UserError: If ONNX Runtime refuses the graph, or cannot load the provider's libraries.
    """
    first: Exception | None = None
    if provider.name != CPU:
        ort.set_default_logger_severity(FATAL)  # What it says while trying is said here, in one sentence.
    for how, providers, strict in provider.attempts(stage, capture):
        made = options()
        if strict:
            made.add_session_config_entry(STRICT, "1")
            made.log_severity_level = FATAL
        try:
            # Its own fallback would go on with another provider and without these options.
            session = ort.InferenceSession(graph, made, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exception types are private to its binding.
            first = first or error
            continue
        # Without its libraries a provider is left out, and ONNX Runtime goes on without it.
        if NAMES[provider.name] not in session.get_providers():
            raise UserError(
                f"onnxruntime {ort.__version__} cannot load its provider for {provider.name} here; it needs "
                f"{LIBRARIES[provider.name]} and a GPU, see `neurocompile doctor`"
            )
        return session, how
    reason = " ".join(str(first).split())[:300]
    needs = f", which needs {LIBRARIES[provider.name]}" if provider.name in LIBRARIES else ""
    raise UserError(
        f"ONNX Runtime {ort.__version__} refuses the graph of stage {stage!r} on {provider.name}{needs}: {reason}"
    ) from first


def mention(placement: Mapping[str, str], provider: Provider) -> None:
    """Says on stderr which stages the processor computes in part, where something else was asked for."""
    if partly := [stage for stage, how in placement.items() if how.endswith("processor") and provider.name != CPU]:
        print(f"onnxruntime computes parts of {', '.join(partly)} on the processor", file=sys.stderr)


LIMITS = (
    "onnxruntime 1.31 loads graphs up to operator set 26; those written here are of operator set 20",
    "onnxruntime-gpu 1.31 is built for CUDA 13; its TensorRT provider loads libnvinfer.so.10, so not TensorRT 11",
    "onnxruntime-gpu's wheel for aarch64 is reported to have no TensorRT provider; on a Jetson use trt-* bundles",
    "the CUDA provider runs stages as CUDA graphs, the TensorRT provider does not (one graph per session)",
    "the processor's provider has no bf16 arithmetic; onnx-bf16 bundles carry a form that rounds as bf16 does",
)
"""What is known to go together and what not, one sentence each; for `neurocompile doctor`."""
