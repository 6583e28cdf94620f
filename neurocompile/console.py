"""What the commands show people: progress of an export and its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from export.pipeline import Export


@contextmanager
def progress(quiet: bool = False) -> Iterator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """A spinner with the step at hand on stderr, and a line with its time once done.

    Args:
        quiet: Show nothing.

    Yields:
        A function to call with every step's name, and one for text that is to stay above them.
    """
    if quiet:
        yield lambda step: None, lambda text: None
        return
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    tasks: list = []

    def step(name: str) -> None:
        if tasks:
            bar.update(tasks[-1], completed=1)
        else:
            # Not before there is something to show: an error about the arguments stays the only line.
            bar.start()
        tasks.append(bar.add_task(name, total=1))

    try:
        yield step, lambda text: bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        if tasks:
            bar.update(tasks[-1], completed=1)
    finally:
        if tasks:
            bar.stop()


def show_export(result: Export) -> None:
    """Prints where the bundle is, what it computes, and how well."""
    manifest = result.manifest
    program, parity = manifest["program"], manifest["parity"]
    console = Console(soft_wrap=True, markup=False)
    for note in result.notes:
        console.print(f"note      {note}")
    what = "bundle" if (result.path / "manifest.json").exists() else "kit"
    console.print(f"{what:9} {result.path}  ({manifest['target']['name']}, {program['family']})")
    every = {"items": program["front_end"].get("hop", 1)}
    for stage in program["stages"]:
        trigger = stage["trigger"]
        about = manifest["build"]["stages"][stage["name"]]
        if trigger["after"] == "request":
            when = "on request"
        else:
            every[stage["name"]] = every[trigger["after"]] * trigger["every"]
            when = "every event" if every[stage["name"]] == 1 else f"every {every[stage['name']]} events"
        console.print(
            f"stage     {stage['name']:16} {when:18} {about['nodes']:3} nodes {about['bytes'] / 1024:9.1f} KiB"
        )
    for change in manifest["passes"]:
        if change.startswith("tabulate"):
            console.print(f"pass      {change}", markup=False)
    console.print(f"passes    {len(manifest['passes'])} rewrites, all listed in the manifest")
    dtype = manifest["target"]["dtype"]
    if "step" in parity:
        step, chunk = parity["step"], parity["chunk"]
        console.print(
            f"parity    {parity['status']} over {parity['events']} events (bound {parity['bound']:.0e} relative): "
            f"readout {step['readout_relative']:.1e}, worst state {step['worst_relative']:.1e}, "
            f"chunks {chunk['worst_relative']:.1e}; {_yardstick(manifest)}"
        )
        if dtype != "fp32":
            drift = list(step["relative_by_event"].items())
            shown = ", ".join(f"{mark}: {value:.1e}" for mark, value in drift[:: max(len(drift) // 6, 1)])
            console.print(f"drift     deviation after so many events: {shown}")
    else:
        console.print(f"parity    {parity['status']}")
    if "agreement" in (labels := parity.get("labels", {})):
        console.print(
            f"labels    the network's on {labels['agreement']:.1%} of {labels['recordings']} test recordings; "
            f"right on {labels['accuracy']:.1%}, the network on {labels['accuracy_of_network']:.1%}"
        )
    if "delay_items" in manifest["build"]:
        console.print(f"smooth    an answer may lack the last {manifest['build']['delay_items']} items")
    if parser := manifest["build"].get("parser_check"):
        console.print(f"parser    {parser}")
    if remaining := manifest["build"].get("remaining"):
        console.print(f"remaining {remaining}")
    elif parity["status"] != "proved":
        console.print(f"note      run `python -m runtime.verify {result.path}` on the machine that will run it")
    if parity["bound"] > parity["declared_bound"]:
        console.print(
            f"note      the bound is {parity['bound']:.0e} and not {parity['declared_bound']:.0e}, since this network "
            "amplifies rounding: at most twice its own deviation, which ends the line of parity"
        )
    console.print(f"sequence  {parity['sequence']}")


def _yardstick(manifest: Mapping[str, Any]) -> str:
    """What PyTorch itself deviates by in the artefact's precision."""
    target, about = manifest["target"], manifest["parity"]["float32_reference"]
    dtype, found = target["dtype"], about["worst_relative"]
    if about["overflow"]:
        who = f"{dtype} torch itself leaves its range, float32 torch with {dtype} operands"
    elif dtype == "fp32" or target["backend"] in ("trt", "onnx"):
        who = f"{'float32' if dtype == 'fp32' else dtype} torch itself"
    else:
        who = f"float32 torch with {dtype} weights"
    return f"{who} {'leaves its range' if found is None else f'{found:.1e}'}"
