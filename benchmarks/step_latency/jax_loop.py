"""The published online loop of event-ssm in JAX: chunks of 256 events, each from zero state.

The network of `models.event_ssm`, offline over one chunk, jitted, with the scan as `jax.lax.associative_scan` over
complex numbers as published (arXiv 2404.18508). Two forms: a loop in Python over jitted chunks, as events arrive, and
the same chunks inside one `lax.scan`. Its answers are those of the network on each chunk alone, not those of a stream
with carried state, so its gate compares with the network in torch, chunk by chunk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from benchmarks.step_latency.figures import row
from benchmarks.step_latency.subject import BOUNDS, Subject, within
from models.event_ssm.config import EventSSMConfig
from models.event_ssm.flax import flax_from_state_dict
from models.event_ssm.pooling import EPS
from models.event_ssm.s5 import CLIPPED
from runtime.front_ends import front_end

CHUNK = 256
PROVEN = 4
SUPPORTED = {
    "discretization": ("async",),
    "prenorm": (True,),
    "batchnorm": (False,),
    "pooling_mode": ("timepool", "avgpool"),
    "classification_mode": ("timepool", "pool"),
}


def obstacle(config: EventSSMConfig) -> str:
    """Why the loop cannot run here, or nothing."""
    if find_spec("jax") is None:
        return "not installed; pip install 'jax[cpu]'"
    for name, values in SUPPORTED.items():
        if getattr(config, name) not in values:
            allowed = " or ".join(map(str, values))
            return f"the loop is written for {name} {allowed}, this network has {getattr(config, name)}"
    if CHUNK % config.total_downsampling:
        return f"a chunk of {CHUNK} events is no multiple of the network's {config.total_downsampling}"
    return ""


def network(config: EventSSMConfig) -> Callable[[dict[str, Any], Any, Any], Any]:
    """The offline network as a function of (parameters, tokens (L,), dt (L,) ms) -> logits (C,)."""
    import jax
    import jax.numpy as jnp

    def norm(w: dict[str, Any], path: str, x: Any) -> Any:
        mean, square = x.mean(-1, keepdims=True), (x * x).mean(-1, keepdims=True)
        scale = w[f"{path}/scale"] * jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0) + 1e-6)
        return (x - mean) * scale + w[f"{path}/bias"]

    def pool(x: Any, dt: Any) -> tuple[Any, Any]:
        groups = dt.reshape(-1, config.pooling_stride)
        weight = groups + EPS if config.pooling_mode == "timepool" else jnp.ones_like(groups)
        x = x.reshape(*groups.shape, -1)
        return (x * weight[..., None]).sum(1) / weight.sum(1)[:, None], groups.sum(1)

    def combine(first: tuple[Any, Any], second: tuple[Any, Any]) -> tuple[Any, Any]:
        return second[0] * first[0], second[0] * first[1] + second[1]

    def layer(w: dict[str, Any], path: str, x: Any, dt: Any, stride: int) -> tuple[Any, Any]:
        s5 = f"{path}/S5SSM_0"
        real = w[f"{s5}/Lambda_re"]
        rates = (jnp.minimum(real, CLIPPED) if config.clip_eigs else real) + 1j * w[f"{s5}/Lambda_im"]
        step = config.step_rescale * jnp.exp(w[f"{s5}/log_step"][:, 0])
        B, C = (w[f"{s5}/{name}"][..., 0] + 1j * w[f"{s5}/{name}"][..., 1] for name in "BC")
        gamma = (jnp.exp(rates * step) - 1) / rates
        u = norm(w, f"{path}/LayerNorm_0", x)
        states = jax.lax.associative_scan(combine, (jnp.exp(rates * step * dt[:, None]), gamma * (u @ B.T)))[1]
        if stride > 1:
            states, (u, _), (x, dt) = states[::stride], pool(u, dt), pool(x, dt)
        y = (states @ C.T).real * (2 if config.conj_sym else 1)
        D = w[f"{s5}/D"]
        y = y + (D * u if D.ndim == 1 else u @ D.T)
        gate = jax.nn.gelu(y) @ w[f"{path}/Dense_0/kernel"] + w[f"{path}/Dense_0/bias"]
        if f"{path}/Dense_1/kernel" in w:
            x = x @ w[f"{path}/Dense_1/kernel"] + w[f"{path}/Dense_1/bias"]
        return x + y * jax.nn.sigmoid(gate), dt

    def logits(w: dict[str, Any], tokens: Any, dt: Any) -> Any:
        x = w["params/encoder/encoder/embedding"][tokens]
        for stage in range(config.num_stages):
            for number in range(config.num_layers_per_stage):
                path = f"params/encoder/stages_{stage}/SequenceLayer_{number}"
                x, dt = layer(w, path, x, dt, 1 if number else config.pooling_stride)
        timed = config.classification_mode == "timepool"
        z = (x * (dt + EPS)[:, None]).sum(0) / dt.sum() if timed else x.mean(0)
        return z @ w["params/decoder/kernel"] + w["params/decoder/bias"]

    return logits


class JaxLoop:
    """Both forms of the loop on the subject's recording.

    Args:
        subject: The network and the recording.

    Attributes:
        error: Deviation from the network in torch, float64, chunk by chunk.
    """

    name = "JAX online loop"

    def __init__(self, subject: Subject) -> None:
        import jax

        model, config = subject.checkpoint.model, subject.checkpoint.model.config
        items = front_end(subject.spec.front_end).open(1.0).push(subject.events)
        count = len(items["token"]) // CHUNK
        self.tokens = items["token"][: count * CHUNK].astype(np.int32).reshape(count, CHUNK)
        self.dt = items["dt"][: count * CHUNK].astype(np.float32).reshape(count, CHUNK)
        weights = flax_from_state_dict(model.state_dict(), config)
        self._weights = {key: jax.device_put(value) for key, value in weights.items()}
        function = network(config)
        self._chunk = jax.jit(function)
        self._scan = jax.jit(
            lambda w, tokens, dt: jax.lax.scan(lambda carry, chunk: (carry, function(w, *chunk)), 0, (tokens, dt))[1]
        )
        self.error = self._gate(model)
        self.samples: np.ndarray | None = None
        self.loop: list[tuple[float, float]] = []
        self.scan: list[tuple[float, float]] = []

    def _gate(self, model: Any) -> float:
        tokens, dt = self.tokens[:PROVEN], self.dt[:PROVEN]
        with torch.no_grad():
            wide = type(model)(model.config).double().eval()
            wide.load_state_dict(model.state_dict())
            wanted = wide(
                torch.from_numpy(tokens).long(), torch.from_numpy(dt).double(), torch.full((len(tokens),), CHUNK)
            ).numpy()
        chunks = np.stack([np.asarray(self._chunk(self._weights, t, d)) for t, d in zip(tokens, dt, strict=True)])
        scanned = np.asarray(self._scan(self._weights, self.tokens, self.dt))[:PROVEN]
        return within(BOUNDS["fp32"], "fp32 (JAX online loop)", [(chunks, wanted), (scanned, wanted)])

    def round(self) -> None:
        """One pass in either form."""
        samples = np.empty(len(self.tokens))
        wall, processor = time.perf_counter(), time.process_time()
        for k, (tokens, dt) in enumerate(zip(self.tokens, self.dt, strict=True)):
            before = time.perf_counter_ns()
            self._chunk(self._weights, tokens, dt).block_until_ready()
            samples[k] = time.perf_counter_ns() - before
        self.loop.append((time.process_time() - processor, time.perf_counter() - wall))
        if self.samples is None or samples.sum() < self.samples.sum():
            self.samples = samples
        wall, processor = time.perf_counter(), time.process_time()
        self._scan(self._weights, self.tokens, self.dt).block_until_ready()
        self.scan.append((time.process_time() - processor, time.perf_counter() - wall))

    def rows(self) -> list[dict[str, Any]]:
        """A row for each form; a call is a chunk of 256 events."""
        assert self.samples is not None
        rows, events = [], self.tokens.size
        for name, spent in ((self.name, self.loop), (f"{self.name} in lax.scan", self.scan)):
            processor, wall = (min(column) / events * 1e9 for column in zip(*spent, strict=True))
            samples = self.samples if spent is self.loop else np.array([wall * events])
            more = {"language": "Python", "error": self.error, "events_per_call": events // len(samples)}
            rows.append(row(name, samples, processor, wall, **more))
        return rows
