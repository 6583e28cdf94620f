"""`python -m runtime.verify X.neuro`: is this bundle what was exported, and does it compute here what was trained?"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from runtime import inputs, machine, proof
from runtime.bundle import Bundle, open_bundle
from runtime.checks import Check, bound, run_checks
from runtime.errors import GateError, guard
from runtime.events import Recording
from runtime.providers import CPU, add_option
from runtime.tables import table


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        prog="python -m runtime.verify",
        description="Check a bundle's files and replay its golden trace on this machine.",
        epilog="Exit code 0: everything holds. 1: something differs. 2: the input cannot be used.",
    )
    made.add_argument("bundle", help="the NAME.neuro folder")
    made.add_argument("-i", "--recording", help="also push this recording event by event and in bulk, and compare")
    made.add_argument("--threads", type=inputs.count, default=1, metavar="N", help="threads within a stage [1]")
    add_option(made)
    made.add_argument("--seed", type=int, default=0, metavar="N", help="of the random splits [0]")
    made.add_argument("--json", action="store_true", help="print the report as JSON")
    inputs.add_options(made)
    return made


def verify(
    bundle: Bundle, *, recording: Recording | None = None, threads: int = 1, seed: int = 0, provider: str = CPU
) -> list[Check]:
    """Runs all checks and remembers for this machine and provider how they went.

    Returns:
        The outcomes, the failed ones among them.

    Raises:
        UserError: If the bundle cannot be run here at all.
    """
    checks = list(run_checks(bundle, recording=recording, threads=threads, seed=seed, provider=provider))
    proof.remember(bundle, all(check.passed for check in checks), provider)
    return checks


def gate(bundle: Bundle, *, threads: int = 1, provider: str = CPU) -> list[Check]:
    """`verify` for commands that do nothing with a bundle that fails.

    Raises:
        GateError: If any check fails.
    """
    checks = verify(bundle, threads=threads, provider=provider)
    if failed := [check for check in checks if not check.passed]:
        raise GateError(f"{bundle.root} does not compute here what was trained ({failed[0].name}: {failed[0].detail})")
    return checks


def report(bundle: Bundle, checks: Sequence[Check], seconds: float) -> dict[str, Any]:
    """Everything as plain numbers and strings."""
    return {
        "bundle": str(bundle.root),
        "name": bundle.name,
        "target": bundle.target,
        "parity_at_export": bundle.parity.get("status"),
        "bound": bound(bundle),
        "passed": all(check.passed for check in checks),
        "checks": [asdict(check) for check in checks],
        "seconds": round(seconds, 3),
        "machine": machine.describe(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        0 if everything holds, 1 if a check failed, 2 if the input cannot be used.
    """
    return guard(lambda: _run(parser().parse_args(arguments)))


def _run(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.bundle)
    recording: Recording | None = None
    done: list[dict[str, Any]] = []
    if options.recording:
        recording, done = inputs.load(options.recording, options, bundle.program.front_end)
    begin = time.perf_counter()
    checks = verify(bundle, recording=recording, threads=options.threads, seed=options.seed, provider=options.provider)
    table_of = report(bundle, checks, time.perf_counter() - begin)
    table_of["provider"] = options.provider
    if recording is not None:
        table_of["recording"] = {"source": recording.source, "events": len(recording.events), "adapters": done}
    if options.json:
        print(json.dumps(table_of, indent=1))
    else:
        _show(bundle, checks, table_of, inputs.describe(recording, done) if recording else None)
    return 0 if table_of["passed"] else 1


def _show(bundle: Bundle, checks: Sequence[Check], figures: dict[str, Any], recording: str | None) -> None:
    print(f"bundle    {bundle.name}  {bundle.target}  parity at export: {figures['parity_at_export']}")
    if figures["provider"] != CPU:
        print(f"provider  {figures['provider']}")
    print(f"bound     {figures['bound']:.0e} of the largest value of each tensor, against the float64 reference")
    if recording:
        print(f"input     {recording}")
    print()
    rows = [(check.name, "ok" if check.passed else "FAIL", check.detail) for check in checks]
    print(table(("check", "", "found"), rows, left=3))
    versions = figures["machine"]["versions"]
    stack = [f"{name} {versions[name]}" for name in ("onnxruntime", "numpy", "python") if name in versions]
    verdict = "PASS" if figures["passed"] else "FAIL"
    print(f"\n{verdict} in {figures['seconds']:.1f} s on {', '.join([figures['machine']['cpu'], *stack])}")


if __name__ == "__main__":
    sys.exit(main())
