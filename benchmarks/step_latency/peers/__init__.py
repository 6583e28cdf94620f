"""The contestants that are not ours, each on the same graphs and the same schedule; those not installed say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from benchmarks.step_latency.subject import Subject
from runtime.session import Session


@dataclass(frozen=True)
class Peer:
    """A contestant.

    Attributes:
        name: In the table.
        package: What must be importable.
        install: What pip installs it.
        module: Where its opener lies, in this package; `module.PEERS[name]` is `(subject, folder) -> session`.
        slow: Whether compiling it takes minutes.
    """

    name: str
    package: str
    install: str
    module: str
    slow: bool = False

    def missing(self) -> str:
        """Why it cannot take part, or nothing."""
        if find_spec(self.package.partition(".")[0]) is None:
            return f"not installed; pip install {self.install}"
        return ""

    def open(self, subject: Subject, folder: Path) -> Session:
        """A session whose stages it runs."""
        openers: dict[str, Callable[[Subject, Path], Session]] = import_module(f"{__name__}.{self.module}").PEERS
        return openers[self.name](subject, folder)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("onnxruntime io-binding", "onnxruntime", "onnxruntime", "ort_peers"),
        Peer("onnxruntime run", "onnxruntime", "onnxruntime", "ort_peers"),
        Peer("onnxruntime dense", "onnxruntime", "onnxruntime", "ort_peers"),
        Peer("torch eager", "torch", "torch", "torch_peers"),
        Peer("torch.compile", "torch", "torch", "torch_peers", slow=True),
        Peer("AOTInductor", "torch", "torch", "torch_peers", slow=True),
        Peer("OpenVINO", "openvino", "openvino", "openvino_peer"),
        Peer("XLA (jax.jit)", "jax", "'jax[cpu]'", "jax_peer"),
        Peer("IREE", "iree", "iree-base-compiler iree-base-runtime", "iree_peer", slow=True),
        Peer("TVM", "tvm", "apache-tvm", "tvm_peer"),
    )
}
