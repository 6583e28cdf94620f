"""The command: everybody on the same window, in turns, on one core, after a check that all give the same answer."""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.window_latency.contestants import Contestant, Subject, compiled, contestants, subject
from benchmarks.window_latency.memory import peak_bytes
from benchmarks.window_latency.table import markdown
from models.event2vec import Event2Vec
from models.event2vec.presets import PRESETS
from neurocompile.lowering import lower
from neurocompile.sequences import fit_to_sensor, shipped_sequence
from neurocompile.targets.cpu.toolchains.compiler import find_compiler
from runtime import machine
from runtime.errors import GateError, guard
from runtime.events import Events
from runtime.front_ends import Window

RESULTS = Path(__file__).resolve().parents[1] / "results"
FLOOR = Path(__file__).resolve().parents[1] / "step_latency" / "floor.c"
LENGTHS = (1024, 2048, 4096, 8192)
BOUNDS = {"cpu-bf16": 3e-2}
BOUND = 1e-4
"""Largest deviation from the float64 network, relative to its largest logit; nobody beyond it is timed."""
OPEN = 12.0
"""Bias of gates that forget nothing within a window."""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.window_latency",
        description="Times one window of Event2Vec on one core: compiled code, its floor, and other stacks.",
    )
    parser.add_argument("--preset", default="dvs_gesture", choices=PRESETS)
    parser.add_argument("--events", type=int, nargs="+", default=list(LENGTHS), help="lengths of the window")
    parser.add_argument("--rounds", type=int, default=5, help="calls of everybody, in turns; the fastest counts")
    parser.add_argument("--quick", action="store_true", help="1024 events, two rounds, no torch.compile, no files")
    parser.add_argument("-o", "--output", type=Path, help="folder of the results; benchmarks/results unless --quick")
    options = parser.parse_args(arguments)
    return guard(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    if options.quick:
        options.events, options.rounds = options.events[:1], min(options.rounds, 2)
    output = options.output or (None if options.quick else RESULTS)
    report: dict[str, Any] = {
        "preset": options.preset,
        "rounds": options.rounds,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {**machine.describe(), "torch": torch.__version__, "compiler": find_compiler().version()},
        "load_average": {"begin": machine.describe()["load_average"]},
        "multiply_adds_per_second": multiply_adds_per_second(),
        "lengths": [],
    }
    for count in sorted(options.events):
        report["lengths"].append(_length(options, count))
        report["load_average"]["end"] = machine.describe()["load_average"]
        # Whoever disturbed the first measurement must not make the core look slow.
        report["multiply_adds_per_second"] = max(report["multiply_adds_per_second"], multiply_adds_per_second())
        if output:  # after every length, as the longer ones take minutes
            output.mkdir(parents=True, exist_ok=True)
            (output / "window_latency.json").write_text(json.dumps(report, indent=1) + "\n")
            (output / "window_latency.md").write_text(markdown(report))
    print(markdown(report))
    return 0


def network(preset: str, gate: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Event2Vec:
    """A published shape with made-up weights; gates forget after 1 to 30 steps unless `gate` says otherwise."""
    draw = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Event2Vec(replace(PRESETS[preset].config, drop_path=0.0)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("f_proj.bias"):
            bias = 2 + 1.5 * torch.randn(parameter.shape, generator=draw)
            parameter.data = bias if gate is None else gate(bias)
    return model


def window(preset: str, count: int) -> Events:
    """Events of the shipped recordings as the network's sensor might have seen them."""
    config = PRESETS[preset].config
    return fit_to_sensor(shipped_sequence(count), Window(config.width, config.height, count, count)).events


def _length(options: argparse.Namespace, count: int) -> dict[str, Any]:
    events = window(options.preset, count)
    case = subject(network(options.preset), events)
    remembering = subject(network(options.preset, lambda bias: torch.full_like(bias, OPEN)), events)
    opened: dict[str, Contestant] = {}
    rows: dict[str, dict[str, Any]] = {}
    makers = dict(contestants(options.quick))
    for name, make in makers.items():
        _enter(name, case, make, opened, rows)
    _enter("cpu-fp32, nothing forgotten", remembering, lambda c: compiled(c, "fp32"), opened, rows)
    for _ in range(options.rounds):
        for name, contestant in opened.items():
            contestant.prepare()
            begin = time.thread_time()
            contestant.answer()
            rows[name]["seconds"].append(time.thread_time() - begin)
    work = lower(case.graphs).multiply_adds
    return {"events": count, "multiply_adds": sum(work.values()), "rows": rows}


def _enter(
    name: str,
    case: Subject,
    make: Callable[[Subject], Contestant],
    opened: dict[str, Contestant],
    rows: dict[str, dict[str, Any]],
) -> None:
    """Opens a contestant, counts the memory of its first answer, and holds the answer to the float64 network."""
    found: list[np.ndarray] = []

    def first() -> None:
        opened[name] = make(case)
        opened[name].prepare()
        found.append(opened[name].answer())

    opening = peak_bytes(first)
    error = float(np.abs(found[0] - case.answer).max() / np.abs(case.answer).max())
    if not error <= BOUNDS.get(name, BOUND):
        raise GateError(
            f"{name} deviates by {error:.1e} from the network on {len(case.events)} events; nothing is timed"
        )
    opened[name].prepare()
    again = peak_bytes(lambda: opened[name].answer())
    rows[name] = {
        "error": error,
        "peak_bytes_opening": opening,
        "peak_bytes_answering": again,
        "seconds": [],
        **opened[name].facts,
    }


def multiply_adds_per_second() -> float:
    """What this core reaches out of registers, the best of three."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "floor"
        find_compiler().run("-O3", "-march=native", "-std=c17", str(FLOOR), "-o", str(program))
        runs = [subprocess.run([str(program)], capture_output=True, text=True, check=True) for _ in range(3)]
    return max(float(run.stdout.split()[0]) for run in runs)
