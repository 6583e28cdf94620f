"""`python -m runtime.bench [X.neuro] --batch 1`: latency per event. No figure before parity is green here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime import inputs, machine, plot
from runtime.bench.measure import Plan, Result, measure
from runtime.bench.show import show
from runtime.bench.workload import Workload, of_recording, shipped
from runtime.bundle import Bundle, open_bundle
from runtime.errors import UserError, guard
from runtime.open import fastest_shipped_bundle
from runtime.providers import add_option
from runtime.verify import gate

EVENTS = 50_000
WARMUP = 2_000


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        prog="python -m runtime.bench",
        description="Time a bundle event by event, with carried state, after verifying it on this machine.",
        epilog="Exit code 1: parity is red and nothing was timed.",
    )
    made.add_argument("bundle", nargs="?", help="the NAME.neuro folder [the shipped model, compiled here if possible]")
    made.add_argument(
        "--batch", type=inputs.count, default=1, metavar="N", help="independent sessions, interleaved [1]"
    )
    made.add_argument("-i", "--recording", metavar="PATH", help="push this recording [shipped N-MNIST recordings]")
    made.add_argument("--events", type=inputs.count, default=EVENTS, metavar="N", help=f"events counted [{EVENTS}]")
    made.add_argument("--warmup", type=_whole, default=WARMUP, metavar="N", help=f"events before those [{WARMUP}]")
    made.add_argument("--rate", type=_rate, metavar="EVENTS_PER_S",
                      help="also an open loop: events arrive at this rate, or at their `recorded` times; "
                           "latency counts from the scheduled arrival")  # fmt: skip
    made.add_argument("--readout-every", type=inputs.count, default=1, metavar="N",
                      help="in the passes that answer, ask at every N-th event [1]")  # fmt: skip
    made.add_argument("--threads", type=inputs.count, default=1, metavar="N", help="threads within a stage [1]")
    add_option(made)
    made.add_argument("--pin", type=_whole, metavar="CORE", help="keep the process on this core")
    made.add_argument("--json", metavar="FILE", help="write the report here; - prints it instead of the table")
    made.add_argument("--raw", action="store_true", help="keep every sample in an .npz beside the JSON file")
    made.add_argument("--plot", metavar="PNG", help="draw the latencies (needs matplotlib)")
    inputs.add_options(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        0, 1 if parity is red (nothing is timed then), 2 if the input cannot be used.
    """
    return guard(lambda: _run(parser().parse_args(arguments)))


def _run(options: argparse.Namespace) -> int:
    if options.raw and options.json in (None, "-"):
        raise UserError("--raw keeps the samples beside the report; name that with --json FILE")
    if options.json not in (None, "-") and not Path(options.json).absolute().parent.is_dir():
        raise UserError(f"{options.json}: its folder does not exist; make it first")
    plot.check(options.plot)
    bundle = open_bundle(options.bundle or _shipped())
    if options.pin is not None and not machine.pin(options.pin):
        raise UserError(f"this process cannot be kept on core {options.pin}; choose one of {machine.affinity()}")
    workload, done = _workload(bundle, options)
    checks = gate(bundle, threads=options.threads, provider=options.provider)
    here = machine.describe()
    plan = Plan(options.warmup, options.batch, options.readout_every, options.rate, options.threads, options.provider)
    result = measure(bundle, workload, plan, _progress)
    report = {
        "bundle": str(bundle.root),
        "name": bundle.name,
        "target": bundle.target,
        "parity_at_export": bundle.parity.get("status"),
        "parity_here": f"{len(checks)} checks passed",
        "input": workload.source,
        "adapters": done,
        "setting": {**vars(plan), "events": len(workload.events) - plan.warmup},
        "machine": here,
        **result.to_json(),
    }
    if options.json == "-":
        print(json.dumps(report, indent=1))
    else:
        print(show(report))
        _write(report, result, options)
    if options.plot:
        closed = {name: values for name, values in result.raw.items() if not name.startswith("stage ")}
        plot.latencies(options.plot, closed, f"{bundle.name} {bundle.target} on {here['cpu']}, batch {plan.batch}")
    return 0


def _shipped() -> Path:
    path, reason = fastest_shipped_bundle()
    if reason:
        print(f"the shipped model runs on ONNX Runtime: {reason}", file=sys.stderr)
    return path


def _workload(bundle: Bundle, options: argparse.Namespace) -> tuple[Workload, list[dict[str, Any]]]:
    total = options.events + options.warmup
    if not options.recording:
        return shipped(total, bundle.program.front_end), []
    recording, done = inputs.load(options.recording, options, bundle.program.front_end)
    return of_recording(recording, total), done


def _write(report: dict[str, Any], result: Result, options: argparse.Namespace) -> None:
    if not options.json:
        return
    path = Path(options.json)
    try:
        path.write_text(json.dumps(report, indent=1) + "\n")
        if options.raw:
            arrays: dict[str, Any] = dict(result.raw)
            np.savez_compressed(path.with_suffix(".npz"), **arrays)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place") from error


def _progress(name: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{name} ...", end="", file=sys.stderr, flush=True)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _rate(text: str) -> float | str:
    if text == "recorded":
        return text
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of events per second nor `recorded`")
    return rate


if __name__ == "__main__":
    sys.exit(main())
