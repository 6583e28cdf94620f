"""From a typed ONNX graph to a serialised TensorRT engine, in Python; the same calls for TensorRT 10.3 to 11.

The module is handed in, so that a check elsewhere can build with TensorRT for RTX what a device builds with its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from runtime.errors import UserError


def build_plan(
    trt: Any,
    stage: str,
    graph: bytes,
    configure: Callable[[Any], None] = lambda config: None,
    flags: Sequence[str] = (),
) -> tuple[bytes, int]:
    """Parses and builds one graph.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        stage: The stage's name, for messages.
        graph: The ONNX file.
        configure: Sets what a caller wants of the builder's configuration.
        flags: Names of flags for the network's creation; those that this TensorRT does not know are left out.

    Returns:
        The serialised engine and the number of layers of its network.

    Raises:
        UserError: If TensorRT refuses the graph or cannot build it; with its first reason.
    """
    reasons: list[str] = []
    logger = _logger(trt, reasons)
    builder = trt.Builder(logger)
    # In 11 there is nothing but strongly typed networks.
    known = (getattr(trt.NetworkDefinitionCreationFlag, name, None) for name in ("STRONGLY_TYPED", *flags))
    network = builder.create_network(sum(1 << int(flag) for flag in known if flag is not None))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        said = [parser.get_error(number).desc() for number in range(parser.num_errors)] or reasons
        raise UserError(_refusal(trt, stage, "cannot read", said))
    config = builder.create_builder_config()
    tf32 = getattr(trt.BuilderFlag, "TF32", None)
    if tf32 is not None:  # float32 that the graph asks for stays float32.
        config.clear_flag(tf32)
    configure(config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError(_refusal(trt, stage, "cannot build", reasons))
    return bytes(memoryview(plan)), int(network.num_layers)


def _refusal(trt: Any, stage: str, what: str, reasons: list[str]) -> str:
    reason = " ".join(reasons[0].split())[:300] if reasons else "it gives no reason"
    return f"TensorRT {trt.__version__} {what} the graph of stage {stage!r}: {reason}"


def _logger(trt: Any, reasons: list[str]) -> Any:
    """A logger that keeps errors to itself, for the message that a user gets."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            """Keeps what matters."""
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                reasons.append(message)

    return Logger()
