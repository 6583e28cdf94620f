"""The command: who takes part, in which order the clocks run, what is written."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.step_latency import plot
from benchmarks.step_latency.acceptance import acceptance
from benchmarks.step_latency.compiled import Compiled
from benchmarks.step_latency.contestants import NAMES, PEER_EVENTS, open_peers
from benchmarks.step_latency.floor import measure
from benchmarks.step_latency.loop import Loop, Recording
from benchmarks.step_latency.python_loop import IdleExecutor, processor_ns
from benchmarks.step_latency.sessions import by_length, interleaved, memory
from benchmarks.step_latency.subject import Subject, open_subject
from benchmarks.step_latency.table import markdown
from models.event_ssm.presets import PRESETS
from neurocompile.targets.cpu.placement.formats import FORMATS
from neurocompile.targets.cpu.toolchains.devices import toolchain
from runtime import machine
from runtime.backends.source import FLAGS
from runtime.errors import guard
from runtime.session import ScheduledSession

RESULTS = Path(__file__).resolve().parents[1] / "results"
LONG = 1 << 20
PACKAGES = ("torch", "onnxruntime", "openvino", "jax", "iree-base-compiler", "apache-tvm")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step_latency",
        description="Times single events of one network on one core: compiled code, its floor, and other stacks.",
    )
    parser.add_argument("--model", type=Path, help="event_ssm checkpoint; random weights of --preset without it")
    parser.add_argument("--preset", default="dvs/small", choices=PRESETS)
    parser.add_argument("--events", type=int, default=65536, help="length of the recording")
    parser.add_argument("--rounds", type=int, default=7, help="passes of everybody, in turns; the fastest counts")
    parser.add_argument("--dtypes", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument(
        "--smooth", nargs="*", default=["fp32"], choices=FORMATS, help="precisions also timed as exported with --smooth"
    )
    parser.add_argument(
        "--peers", nargs="*", default=list(NAMES), metavar="PEER", choices=NAMES, help="some of " + ", ".join(NAMES)
    )
    parser.add_argument("--quick", action="store_true", help="short; leaves out peers that take long to compile")
    parser.add_argument("-o", "--output", type=Path, help="folder of the results; benchmarks/results unless --quick")
    options = parser.parse_args(arguments)
    return guard(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    if options.quick:
        options.events, options.rounds = min(options.events, 16384), min(options.rounds, 2)
    output = options.output or (None if options.quick else RESULTS)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        report = _measure(options, Path(folder))
    text = markdown(report)
    print(text)
    if output:
        output.mkdir(parents=True, exist_ok=True)
        (output / "step_latency.json").write_text(json.dumps(report, indent=1) + "\n")
        (output / "step_latency.md").write_text(text)
        if why := plot.missing():
            print(why)
        else:
            plot.draw(report, output / "step_latency.svg")
    return 0


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    subject = open_subject(options.model, options.preset, options.events)
    loop, recording = Loop(folder), Recording(subject.events)
    ours = [Compiled(subject, dtype, folder / dtype, loop, recording) for dtype in options.dtypes]
    smooth = [Compiled(subject, dtype, folder / f"{dtype}-smooth", loop, recording, True) for dtype in options.smooth]
    works, load = [one.works() for one in ours], machine.describe()["load_average"]
    core = measure(works, folder)
    peers, absent = open_peers(subject, folder / "peers", options.peers, quick=options.quick)
    idle = ScheduledSession(subject.spec, IdleExecutor(), use_chunk=False)
    schedule = []
    for _ in range(options.rounds):
        for contestant in (*ours, *smooth, *peers):
            contestant.round()
        schedule.append(processor_ns(idle, subject.events[:PEER_EVENTS]))
    # Whoever disturbed the first measurement of the floor must not make it look high.
    core = core.best(measure(works, folder))
    rows = [one.report(core, options.rounds) for one in (*ours, *smooth)]
    rows += [row for peer in peers for row in peer.rows()]
    first = ours[0]
    length = 4 * options.events if options.quick else LONG
    report = {
        **_circumstances(options, subject),
        "load_average": {"begin": load, "end": machine.describe()["load_average"]},
        "clock_ns": loop.clock_ns,
        "clock_ticks_per_second": loop.ticks_per_second,
        "python_schedule_ns": min(schedule),
        "multiply_adds_per_second": core.peak,
        "bytes_per_second": {str(size): rate for size, rate in core.bandwidth.items()},
        "rows": rows,
        "absent": absent,
        "sessions": {one.name: interleaved(one, options.rounds) for one in ours},
        "session_memory": memory(first),
        "by_length": {first.name: by_length(first, length, min(options.rounds, 3))},
    }
    return report | {"acceptance": acceptance(report)}


def _circumstances(options: argparse.Namespace, subject: Subject) -> dict[str, Any]:
    tools = toolchain("native")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": dict(_versions()),
        "compiler": tools.compiler.version(),
        "flags": [*FLAGS, *tools.flags],
        "model": subject.name,
        "sequence": subject.source,
        "events": len(subject.events),
        "peer_events": min(PEER_EVENTS, len(subject.events)),
        "rounds": options.rounds,
        "gate_events": subject.proven,
    }


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue
