"""Latency of single events: compiled code against ONNX Runtime and eager PyTorch on the same schedule, and its floor.

    python -m benchmarks.step_latency --preset dvs/small --events 65536

One process per measurement, one core, the same weights, the same events (shipped recordings, mapped onto the model's
sensor), strictly one event per call. Compiled code is timed in C through its interface: throughput as processor time of
whole passes without clock reads (best of the rounds, so that a busy machine shows little), latency from a pass with
clock reads, whose cost is in the report. No figure is printed for a session that differs from the float64 reference by
more than its precision's bound.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.step_latency_floor import floor_ns, measure, work
from models.checkpoint import Checkpoint, open_checkpoint
from models.event_ssm import EventSSM
from models.event_ssm.presets import PRESETS
from neurocompile.capture import capture
from neurocompile.graph_program import GraphProgram
from neurocompile.lowering import lower
from neurocompile.passes import run_passes
from neurocompile.program import StreamProgram
from neurocompile.reference import reference_session
from neurocompile.sequences import fit_to_sensor, shipped_sequence
from neurocompile.targets import TargetSpec, cpu
from neurocompile.targets.cpu.compiler import find_compiler
from neurocompile.targets.cpu.formats import FORMATS
from runtime import machine
from runtime.backends.native import NativeModel, NativeSession
from runtime.backends.ort import OrtExecutor
from runtime.errors import GateError, guard
from runtime.events.container import Events
from runtime.schedule import firings
from runtime.session import ScheduledSession, Session
from runtime.trace import push_singly

LOOP = Path(__file__).with_name("step_latency_loop.c")
BOUNDS = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.1}
PERCENTILES = (50, 90, 99, 99.9)
PEER_EVENTS = 4096


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_latency", description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="checkpoint; random weights of --preset without it")
    parser.add_argument("--preset", default="dvs/small", choices=PRESETS)
    parser.add_argument("--events", type=int, default=65536)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtypes", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--peers", nargs="*", default=["onnxruntime", "torch"], choices=["onnxruntime", "torch"])
    parser.add_argument("-o", "--output", type=Path, help="JSON report")
    options = parser.parse_args(arguments)
    return guard(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    checkpoint = _checkpoint(options)
    program = _stepping(checkpoint.model.stream_program(checkpoint.front_end, checkpoint.labels))
    graphs = run_passes(capture(program))[0]
    recording = fit_to_sensor(shipped_sequence(options.events), checkpoint.front_end)
    events = recording.events
    gate = _gate(program, events[: 2 * program.spec.period + 40])
    report: dict[str, Any] = {"machine": machine.describe(), "model": options.preset, "sequence": recording.source}
    report |= {"events": len(events), "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in options.dtypes:
            report["rows"].append(_compiled(graphs, dtype, events, options.rounds, gate, Path(folder) / dtype))
    openers = {"onnxruntime": lambda: _onnx(graphs), "torch": lambda: reference_session(program, torch.float32)}
    for peer in options.peers:
        report["rows"].append(_peer(peer, openers[peer](), events[:PEER_EVENTS], gate))
    _show(report)
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _checkpoint(options: argparse.Namespace) -> Checkpoint:
    if options.model:
        return open_checkpoint(options.model)
    preset = PRESETS[options.preset]
    torch.manual_seed(0)
    return Checkpoint("event_ssm", EventSSM(preset.config).eval(), preset.config, preset.front_end, preset.labels)


def _stepping(program: StreamProgram) -> StreamProgram:
    """Without the chunk form, which no measurement here uses."""
    modules = {name: module for name, module in program.modules.items() if name != "chunk"}
    return StreamProgram(replace(program.spec, chunk=None), modules)


def _onnx(graphs: GraphProgram) -> Session:
    return ScheduledSession(graphs.spec, OrtExecutor(graphs.spec, graphs.serialised()), use_chunk=False)


def _gate(program: StreamProgram, events: Events) -> Any:
    """A function that raises `GateError` unless a session answers as the float64 reference does."""
    reference = reference_session(program, torch.float64)
    reference.push(events)
    wanted = {"readout": reference.readout(), **{s.name: reference.state(s.name) for s in program.spec.states}}

    def check(session: Session, dtype: str) -> float:
        session.reset()
        push_singly(session, events)
        found = {"readout": session.readout(), **{s.name: session.state(s.name) for s in program.spec.states}}
        error = max(float(np.abs(found[n] - v).max() / max(np.abs(v).max(), 1e-6)) for n, v in wanted.items())
        if not error <= BOUNDS[dtype]:
            raise GateError(
                f"a session in {dtype} is off by {error:.1e}, more than {BOUNDS[dtype]:.0e}; no speed is reported"
            )
        return error

    return check


def _compiled(graphs: GraphProgram, dtype: str, events: Events, rounds: int, gate: Any, folder: Path) -> dict[str, Any]:
    artefact = cpu.build(graphs, TargetSpec("cpu", dtype))
    for name, data in artefact.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    library = folder / f"libmodel.{cpu.SUFFIX}"
    model = NativeModel(graphs.spec, library, (folder / "model.weights").read_bytes())
    session = NativeSession(graphs.spec, model)
    error = gate(session, dtype)
    clock, single, many, samples = _loop(folder, library, events, rounds)
    loops, form = lower(graphs), FORMATS[dtype]
    works = work(graphs.spec, loops, form)
    peak, rates = measure([stage.between for stage in works.values()], folder)
    floor = floor_ns(works, peak, rates)
    table = firings(graphs.spec)
    late = int(graphs.spec.front_end["dt"] == "next")
    kinds: dict[str, list[float]] = {}
    for number, sample in enumerate(samples[late:].tolist()):
        kinds.setdefault(f"{len(table[number % len(table)])} stages", []).append(sample)
    row = _row(f"cpu-{dtype}", samples, len(events) / min(single))
    return row | {
        "events_per_second_bulk": len(events) / min(many),
        "events_per_second_python": _python_rate(session, events[:PEER_EVENTS]),
        "clock_read_ns": clock,
        "error": error,
        "floor_ns": floor,
        "over_floor": min(single) / len(events) * 1e9 / floor,
        "median_ns_by_stages_fired": {kind: float(np.median(values)) for kind, values in kinds.items()},
        "work": {name: stage.__dict__ for name, stage in works.items()},
        "multiply_adds_per_second": peak,
        "bytes_per_second": {str(size): rate for size, rate in rates.items()},
        "session_bytes": int(model.info.session_bytes),
    }


def _loop(
    folder: Path, library: Path, events: Events, rounds: int
) -> tuple[float, list[float], list[float], np.ndarray]:
    """(cost of a clock read in ns, seconds of passes event by event, of bulk passes, ns of every event)."""
    program, data, out = folder / "loop", folder / "events", folder / "out"
    find_compiler().run("-O2", "-std=c17", f"-I{folder / 'c'}", str(LOOP), str(library), "-o", str(program))
    columns = ((events.t, np.int64), (events.x, np.uint16), (events.y, np.uint16), (events.p, np.uint8))
    data.write_bytes(b"".join([np.int64(len(events)).tobytes(), *(c.astype(kind).tobytes() for c, kind in columns)]))
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    subprocess.run([str(program), str(folder), str(data), str(rounds), str(out)], check=True, env=environment)
    numbers = np.fromfile(out, np.float64)
    passes = numbers[1 : 1 + 2 * rounds]
    return float(numbers[0]), passes[0::2].tolist(), passes[1::2].tolist(), numbers[1 + 2 * rounds :]


def _python_rate(session: Session, events: Events) -> float:
    best = np.inf
    for _ in range(3):
        session.reset()
        start = time.thread_time()
        push_singly(session, events)
        best = min(best, time.thread_time() - start)
    return len(events) / best


def _peer(name: str, session: Session, events: Events, gate: Any) -> dict[str, Any]:
    error = gate(session, "fp32")
    session.reset()
    samples = np.empty(len(events))
    columns = [getattr(events, column).tolist() for column in "txyp"]
    for number, event in enumerate(zip(*columns, strict=True)):
        start = time.perf_counter_ns()
        session.push_event(*event)
        samples[number] = time.perf_counter_ns() - start
    return _row(name, samples, _python_rate(session, events)) | {"error": error}


def _row(name: str, samples: np.ndarray, rate: float) -> dict[str, Any]:
    ranks = {f"p{p}_ns": float(np.percentile(samples, p)) for p in PERCENTILES}
    return {
        "name": name,
        "events_per_second": rate,
        "mean_ns": float(samples.mean()),
        **ranks,
        "max_ns": float(samples.max()),
    }


def _show(report: dict[str, Any]) -> None:
    print(f"{report['model']}, {report['events']} events, {report['machine']['cpu']}\n")
    print("| | events/s | p50 | p90 | p99 | p99.9 | max | floor | over floor | from Python | error |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for row in report["rows"]:
        times = " | ".join(f"{row[key] / 1000:.2f} us" for key in ("p50_ns", "p90_ns", "p99_ns", "p99.9_ns", "max_ns"))
        floor = f"{row['floor_ns'] / 1000:.2f} us | {row['over_floor']:.2f}" if "floor_ns" in row else "- | -"
        python = f"{row['events_per_second_python']:,.0f}" if "floor_ns" in row else f"{row['events_per_second']:,.0f}"
        print(
            f"| {row['name']} | {row['events_per_second']:,.0f} | {times} | {floor} | {python} | {row['error']:.0e} |"
        )


if __name__ == "__main__":
    sys.exit(main())
