"""One hop of a stream of windows: `python -m benchmarks.window_latency.hops`.

Compares the published network, of which every hop is a whole window, with the one of the same sizes and a fixed time
scale, which makes tokens of the new events only and takes the first layer's attention over from hop to hop
(`models.event2vec.once`, `models.event2vec.carried`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.window_latency.command import BOUND, OPEN, RESULTS
from models.event2vec import Event2Vec
from models.event2vec.presets import PRESETS
from neurocompile.capture import capture
from neurocompile.lowering import lower
from neurocompile.passes import run_passes
from neurocompile.program import StreamProgram
from neurocompile.sequences import fit_to_sensor, shipped_sequence
from neurocompile.targets import TargetSpec, cpu
from neurocompile.targets.cpu.toolchains.compiler import find_compiler
from runtime import machine
from runtime.backends.native import NativeModel, NativeSession
from runtime.errors import GateError, guard
from runtime.events import Events
from runtime.front_ends import Window, front_end

GATES = {"gates that forget": None, "nothing forgotten": OPEN}
SCALES = {"time of the window (published)": None, "fixed time scale": 1.0}


def network(preset: str, time_scale: float | None, gate: float | None) -> Event2Vec:
    """A published shape with made-up weights, as in `command.network`."""
    draw = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Event2Vec(replace(PRESETS[preset].config, drop_path=0.0, time_scale=time_scale)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("f_proj.bias"):
            bias = 2 + 1.5 * torch.randn(parameter.shape, generator=draw)
            parameter.data = bias if gate is None else torch.full_like(bias, gate)
    return model


def opened(program: StreamProgram) -> tuple[NativeSession, dict[str, int]]:
    """The compiled program, and its multiply-adds by stage."""
    graphs = run_passes(capture(program))[0]
    files = cpu.build(graphs, TargetSpec("cpu", "fp32")).files
    name = next(name for name in files if name.startswith("libmodel."))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(files[name])
        session = NativeSession(program.spec, NativeModel(program.spec, Path(folder) / name, files["model.weights"]))
    return session, lower(graphs).multiply_adds


def hold(program: StreamProgram, session: NativeSession, events: Events) -> None:
    """Compares the answer after these events with the float64 network's.

    Raises:
        GateError: If it deviates by more than the bound.
    """
    assert program.offline is not None
    wanted, found = program.offline(front_end(program.spec.front_end).open().push(events)), session.readout()
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not error <= BOUND:
        raise GateError(f"deviates by {error:.1e} from the network on {len(events)} events; no time is reported")


def measure(preset: str, window: int, hop: int, rounds: int) -> dict[str, Any]:
    """Seconds per hop of both, in turns, for both kinds of gates."""
    config = PRESETS[preset].config
    front = Window(config.width, config.height, window, hop)
    events = fit_to_sensor(shipped_sequence(window + rounds * hop), front).events
    rows: dict[str, Any] = {}
    for gates, bias in GATES.items():
        programs = {name: network(preset, scale, bias).stream_program(front) for name, scale in SCALES.items()}
        found = {name: opened(program) for name, program in programs.items()}
        for name, (session, _) in found.items():
            session.push(events[:window])
            hold(programs[name], session, events[:window])
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for number in range(rounds):
            part = events[window + number * hop : window + (number + 1) * hop]
            for name, (session, _) in found.items():
                begin = time.thread_time()
                session.push(part)
                session.readout()
                seconds[name].append(time.thread_time() - begin)
        for name, (session, _) in found.items():
            hold(programs[name], session, events)
        rows[gates] = {name: {"seconds": seconds[name], "multiply_adds": work} for name, (_, work) in found.items()}
    return {"window": window, "hop": hop, "rows": rows}


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a table."""
    lines = [
        f"# One hop of a stream of windows, shape `{report['preset']}`, `cpu-fp32`, one core",
        "",
        f"{report['machine']['cpu']}; {report['machine']['compiler']}; {report['date']}; load average "
        f"{report['load_average']}.",
        "",
        "Processor time to take the events of a hop and answer, fastest of the rounds, both networks in turns, their "
        "answers held to the float64 networks' before the first and after the last round. With a fixed time scale, "
        "embeddings, temporal features and the first layer's projections are made once per event, and of the first "
        "layer's attention only what the hop's events change; whatever follows runs over the whole window in both.",
        "",
        "| window | hop | | " + " | ".join(SCALES) + " | saved |",
        "|---|---|---|---|---|---|",
    ]
    for case in report["cases"]:
        for gates, row in case["rows"].items():
            before, after = (min(row[name]["seconds"]) * 1e3 for name in SCALES)
            where = f"| {case['window']} | {case['hop']} | ms, {gates}"
            lines.append(f"{where} | {before:.2f} | {after:.2f} | {1 - after / before:.1%} |")
        before, after = (sum(row[name]["multiply_adds"].values()) / 1e6 for name in SCALES)
        lines.append(
            f"| {case['window']} | {case['hop']} | million multiply-adds | {before:.1f} | {after:.1f} | "
            f"{1 - after / before:.1%} |"
        )
    return "\n".join([*lines, ""])


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.window_latency.hops", description=__doc__)
    parser.add_argument("--preset", default="dvs_gesture", choices=PRESETS)
    parser.add_argument("--windows", type=int, nargs="+", default=[1024, 4096], help="events in a window")
    parser.add_argument("--hops", type=int, nargs="+", default=[16], help="hops in a window")
    parser.add_argument("--rounds", type=int, default=12, help="hops that are timed")
    parser.add_argument("-o", "--output", type=Path, help="folder of the results; benchmarks/results by default")
    options = parser.parse_args(arguments)
    return guard(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    described = machine.describe()
    report = {
        "preset": options.preset,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {**described, "compiler": find_compiler().version()},
        "load_average": described["load_average"][0],
        "cases": [
            measure(options.preset, window, window // hops, options.rounds)
            for window in options.windows
            for hops in options.hops
        ],
    }
    output = options.output or RESULTS
    output.mkdir(parents=True, exist_ok=True)
    (output / "window_hops.json").write_text(json.dumps(report, indent=1) + "\n")
    (output / "window_hops.md").write_text(markdown(report))
    print(markdown(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
