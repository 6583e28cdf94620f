"""The main job in four commands, on shipped data: export, verify, classify recordings event by event, measure.

`python -m benchmarks.demo` (or `make demo`) prints each command before it runs it, so that it can be typed again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from models.zoo import shipped_checkpoint
from neurocompile.targets import availability
from runtime.errors import guard
from runtime.events.shipped import mini_set

FASTEST, ANYWHERE = "cpu-fp32", "onnx-fp32"


def commands(output: Path, target: str) -> list[list[str]]:
    """The commands of the demo, as typed after `python -m`.

    Args:
        output: Where the bundle goes.
        target: What to export for.
    """
    bundle = str(output / "nmnist_ssm.neuro")
    model = str(shipped_checkpoint())
    return [
        ["neurocompile", "export", "--model", model, "--target", target, "-o", bundle],
        ["neurocompile", "verify", bundle],
        ["runtime.run", bundle, "-i", str(mini_set()), "--split", "test"],
        ["runtime.bench", bundle, "--batch", "1"],
    ]


def best_target() -> str:
    """The fastest target that can be built here; says so where that is not the first choice."""
    if reason := availability(FASTEST).build:
        print(f"{FASTEST} cannot be built here ({reason}); the demo uses {ANYWHERE}")
        return ANYWHERE
    return FASTEST


def demo(arguments: list[str]) -> int:
    """Runs the commands one after the other.

    Args:
        arguments: Of the command line.

    Returns:
        The exit code of the first command that failed, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder for the bundle [%(default)s]")
    parser.add_argument("--target", help=f"what to export for [{FASTEST} where it can be built, else {ANYWHERE}]")
    options = parser.parse_args(arguments)
    begin = time.perf_counter()
    for command in commands(options.output, options.target or best_target()):
        print(f"\n$ {'' if command[0] == 'neurocompile' else 'python -m '}{' '.join(command)}", flush=True)
        code = subprocess.run([sys.executable, "-m", *command], check=False).returncode
        if code:
            print(f"the command above failed with exit code {code}", file=sys.stderr)
            return code
    print(f"\ndone in {time.perf_counter() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(guard(lambda: demo(sys.argv[1:])))
