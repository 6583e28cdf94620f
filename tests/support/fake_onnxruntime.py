"""onnxruntime with providers for a GPU over the processor's: what they promise and nothing more.

A tensor of the device can be read only by `numpy`, which is counted, and written only by `update_inplace`. A CUDA graph
is what its number was first run with: the bindings of later runs are not looked at.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as real

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
GRAPH, STRICT = "enable_cuda_graph", "session.disable_cpu_ep_fallback"


class OrtValue:
    """A tensor; `device` says where, `owner` counts what crosses the border."""

    owner: Fake

    def __init__(self, array: np.ndarray, device: str) -> None:
        self.device = device
        self.real = real.OrtValue.ortvalue_from_numpy(np.array(array, order="C"))

    def numpy(self) -> np.ndarray:
        self.owner.fetched += 1
        return self.real.numpy()

    def update_inplace(self, array: np.ndarray) -> None:
        self.owner.sent.append(array.nbytes)
        self.real.update_inplace(array)


class SessionOptions(real.SessionOptions):
    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


class RunOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_run_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


class Binding:
    def __init__(self, session: InferenceSession) -> None:
        self.session, self.inputs, self.outputs = session, {}, {}

    def bind_ortvalue_input(self, name: str, value: OrtValue) -> None:
        assert value.device == "cuda", name
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: OrtValue) -> None:
        assert value.device == "cuda", name
        self.outputs[name] = value


class InferenceSession:
    owner: Fake

    def __init__(self, graph: bytes, options: SessionOptions, providers: list, enable_fallback: int = 1) -> None:
        assert not enable_fallback, "onnxruntime would go on with another provider than the one asked for"
        names = [name for name, _ in providers]
        self.options = dict(providers)
        self.captures = self.options[names[0]].get(GRAPH) == "1"
        self.owner.opened.append((graph, names, self.options, dict(options.entries)))
        if reason := self.owner.refuse(names, self.captures, options.entries.get(STRICT) == "1"):
            raise RuntimeError(reason)
        self.names = names if self.owner.loads else [CPU]
        plain = real.SessionOptions()
        plain.log_severity_level = 3
        self.inner = real.InferenceSession(self.owner.as_run(graph), plain, providers=[CPU])
        self.graphs: dict[str, Binding] = {}

    def get_providers(self) -> list[str]:
        return [*self.names, CPU]

    def get_inputs(self) -> list:
        return self.inner.get_inputs()

    def io_binding(self) -> Binding:
        return Binding(self)

    def run_with_iobinding(self, binding: Binding, options: RunOptions | None = None) -> None:
        number = options.entries.get("gpu_graph_id") if options else None
        if self.captures:
            assert number not in (None, "0", "-1"), "one number per set of addresses"
            binding = self.graphs.setdefault(number, binding)
        made = self.inner.io_binding()
        for name, value in binding.inputs.items():
            made.bind_ortvalue_input(name, value.real)
        for name, value in binding.outputs.items():
            made.bind_ortvalue_output(name, value.real)
        self.inner.run_with_iobinding(made)
        self.owner.runs += 1


class Fake:
    """Stands for the module.

    Args:
        providers: What the installation has besides the processor.
        refuse: Given provider names, whether a CUDA graph is wanted and whether the processor is out: a reason or "".
        loads: Whether the providers' libraries can be loaded.
        as_run: What the processor runs in a graph's stead.
    """

    __version__ = "1.31.1"

    def __init__(
        self,
        providers=(TENSORRT, CUDA),
        refuse=lambda names, graph, strict: "",
        loads=True,
        as_run=lambda graph: graph,
    ) -> None:
        self.refuse, self.loads, self.as_run = refuse, loads, as_run
        self.opened, self.sent, self.fetched, self.runs = [], [], 0, 0
        self.providers = [*providers, CPU]
        self.SessionOptions, self.RunOptions = SessionOptions, RunOptions
        self.InferenceSession = type("InferenceSession", (InferenceSession,), {"owner": self})
        value = type("OrtValue", (OrtValue,), {"owner": self})
        value.ortvalue_from_numpy = classmethod(lambda cls, array, device="cpu", number=0: cls(array, device))
        self.OrtValue = value

    def set_default_logger_severity(self, severity: int) -> None:
        assert severity == 4

    def get_available_providers(self) -> list[str]:
        return self.providers
