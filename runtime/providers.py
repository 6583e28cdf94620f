"""What ONNX Runtime computes with: the processor, CUDA, or TensorRT. The names, and the option of every command."""

from __future__ import annotations

import argparse

CPU, CUDA, TENSORRT = "cpu", "cuda", "tensorrt"
PROVIDERS = (CPU, CUDA, TENSORRT)


def add_option(parser: argparse.ArgumentParser) -> None:
    """The option `--provider`; the processor by default, because that is where `onnx-*` bundles are proved."""
    parser.add_argument(
        "--provider",
        choices=PROVIDERS,
        default=CPU,
        help="what ONNX Runtime computes an onnx-* bundle with [cpu, where it was proved; others want a verification]",
    )
