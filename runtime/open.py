"""From a bundle to a running session: the backend its target names, on a machine that can run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runtime import machine, proof
from runtime.backends import source
from runtime.bundle import Bundle
from runtime.errors import UserError
from runtime.front_ends import front_end
from runtime.providers import CPU, PROVIDERS
from runtime.session import Executor, ScheduledSession, Session

SHIPPED = Path(__file__).parent / "shipped" / "nmnist_ssm.neuro"
SHIPPED_SOURCE = Path(__file__).parent / "shipped" / "nmnist_ssm_cpu.neuro"


def open_session(
    bundle: Bundle,
    *,
    backend: str | None = None,
    tick_us: float = 1.0,
    threads: int = 1,
    use_chunk: bool = True,
    require_proof: bool = True,
    provider: str = CPU,
) -> Session:
    """A session at the beginning of a stream.

    Args:
        bundle: The opened bundle.
        backend: Must be the one of the bundle's target; chosen by it where not given.
        tick_us: Length of one tick of the events' times in microseconds.
        threads: Threads within one stage.
        use_chunk: Whether `push` may take the chunk form; a session that only gets single events opens faster without.
        require_proof: Refuse what was neither proved at export nor verified on this machine; only a verification
            itself does without.
        provider: What ONNX Runtime computes an `onnx-*` bundle with, one of `PROVIDERS`. On another than the processor
            a bundle counts as proved only after `python -m runtime.verify --provider` succeeded on this machine.

    Raises:
        UserError: If the bundle is unproved, this machine cannot run it, or its backend is missing.
    """
    if not 0 < tick_us < float("inf"):
        raise UserError(f"a tick of {tick_us} us is not possible; give a positive number of microseconds")
    if threads < 1:
        raise UserError(f"{threads} threads cannot run anything; give at least 1")
    front_end(bundle.program.front_end).open(tick_us)  # refuses ticks that the model cannot take
    name = bundle.manifest["target"]["backend"]
    if backend not in (None, name):
        raise UserError(f"{bundle.root} was built for backend {name!r} and cannot run on {backend!r}; export it anew")
    if name not in BACKENDS:
        raise UserError(
            f"{bundle.root} needs backend {name!r}, which this version does not know; it knows {', '.join(BACKENDS)}"
        )
    if reason := machine.obstacle_of(bundle.manifest["target"]):
        raise UserError(f"{bundle.root} cannot run here: {reason}; export it for this machine")
    if provider not in PROVIDERS:
        raise UserError(f"there is no provider {provider!r}; these exist: {', '.join(PROVIDERS)}")
    if provider != CPU and name != "onnx":
        raise UserError(f"--provider is for onnx-* bundles, and {bundle.root} is one for {bundle.target}; leave it out")
    if require_proof:
        proof.require(bundle, provider)
    if name == "onnx":
        return _onnx(bundle, tick_us, threads, use_chunk, provider)
    return BACKENDS[name](bundle, tick_us, threads, use_chunk)


def shipped_bundle() -> Path:
    """The folder of the model that comes with the package.

    Raises:
        UserError: If this installation is without it.
    """
    if not SHIPPED.is_dir():
        raise UserError(f"this installation is without the shipped model ({SHIPPED}); name a bundle, or install anew")
    return SHIPPED


def fastest_shipped_bundle() -> tuple[Path, str]:
    """The shipped model in the form that answers fastest here.

    Returns:
        Its folder, and why it is not the compiled form (empty if it is).

    Raises:
        UserError: See `shipped_bundle`.
    """
    if not SHIPPED_SOURCE.is_dir():
        return shipped_bundle(), f"{SHIPPED_SOURCE} is missing"
    reason = source.obstacle()
    return (shipped_bundle(), reason) if reason else (SHIPPED_SOURCE, "")


def _onnx(bundle: Bundle, tick_us: float, threads: int, use_chunk: bool, provider: str = CPU) -> Session:
    try:
        from runtime.backends.ort import OrtExecutor
        from runtime.backends.ort_device import DeviceExecutor
        from runtime.backends.ort_providers import find_provider
    except ImportError as error:
        raise UserError(
            f"{bundle.root} runs on ONNX Runtime, which cannot be imported here ({error}); pip install onnxruntime"
        ) from error
    executor: Executor
    found = find_provider(provider, machine.cache_folder() / "ort_engines" / bundle.digest()[:32])
    graphs = bundle.graphs(device=provider != CPU)
    if bundle.program.chunk and not use_chunk:
        del graphs[bundle.program.chunk.name]
    if provider == CPU:
        executor = OrtExecutor(bundle.program, graphs, threads=threads)
    else:
        executor = DeviceExecutor(bundle.program, graphs, found, threads=threads)
    return ScheduledSession(bundle.program, executor, tick_us=tick_us, use_chunk=use_chunk)


def _cpu(bundle: Bundle, tick_us: float, threads: int, use_chunk: bool) -> Session:
    """Compiled code runs in the caller's thread, whatever was asked for."""
    from runtime.backends.native import open_native

    return open_native(bundle, tick_us=tick_us, use_chunk=use_chunk)


def _trt(bundle: Bundle, tick_us: float, threads: int, use_chunk: bool) -> Session:
    from runtime.backends.tensorrt import open_tensorrt

    return open_tensorrt(bundle, tick_us=tick_us, use_chunk=use_chunk)


# Backend of a target -> the session of a bundle, given tick length, threads and whether the chunk form is wanted.
BACKENDS: dict[str, Callable[[Bundle, float, int, bool], Session]] = {"onnx": _onnx, "cpu": _cpu, "trt": _trt}
