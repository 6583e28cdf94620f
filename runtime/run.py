"""`python -m runtime.run X.neuro -i recording`: labels over time as events arrive, and a labelled set's accuracy."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from runtime import inputs, plot
from runtime.answers import Answer, Interval, answers, parse_interval, suit
from runtime.bundle import Bundle, open_bundle
from runtime.errors import UserError, guard
from runtime.inputs import Sample
from runtime.open import open_session
from runtime.providers import CPU, add_option
from runtime.session import Session
from runtime.tables import line

COLUMNS = ("time", "events", "label", "probability", "margin", "")
WIDTHS = (13, 9, 10, 11, 8, 10)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        prog="python -m runtime.run",
        description="Push recordings event by event through a bundle and print what it answers.",
        epilog="margin: largest logit less the second largest. Every recording begins in a fresh state.",
    )
    made.add_argument("bundle", help="the NAME.neuro folder")
    made.add_argument("-i", "--recording", nargs="+", required=True, metavar="PATH",
                      help="recordings, archive.zip:member, or folders and zip archives (.../label/file)")  # fmt: skip
    made.add_argument("--every", type=parse_interval, metavar="T|N", help="answer every 10ms, or every 1000 events")
    made.add_argument("--samples", type=inputs.count, metavar="N", help="of many recordings take N, evenly spaced")
    made.add_argument("--split", choices=inputs.SPLITS, help="of many recordings take those below a folder so named")
    made.add_argument("--threads", type=inputs.count, default=1, metavar="N", help="threads within a stage [1]")
    add_option(made)
    made.add_argument("--json", action="store_true", help="print the report as JSON")
    made.add_argument("--plot", metavar="PNG", help="draw the probabilities over time (needs matplotlib)")
    inputs.add_options(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        0, or 2 if the input cannot be used.
    """
    return guard(lambda: _run(parser().parse_args(arguments)))


def interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a success rate."""
    z, rate = 1.96, successes / trials
    middle = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def _run(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.bundle)
    samples = inputs.find(options.recording, bundle.program.labels)
    if options.split:
        samples = [sample for sample in samples if sample.split == options.split]
        if not samples:
            raise UserError(f"no recording lies below a folder named {options.split!r}; leave --split out")
    samples = inputs.spread(samples, options.samples)
    if options.plot and len(samples) > 1:
        raise UserError(f"--plot draws one recording and {len(samples)} were given; name one with -i")
    plot.check(options.plot)
    session = _sessions(bundle, options.threads, options.provider)
    session(1.0)  # A bundle that cannot run is refused before anything is printed.
    say = (lambda text: None) if options.json else (lambda text: print(text, flush=True))
    say(f"bundle    {bundle.name}  {bundle.target}  parity at export: {bundle.parity.get('status')}")
    if options.provider != CPU:
        say(f"provider  {options.provider}, verified on this machine")
    if len(samples) == 1:
        report, rows = _one(bundle, samples[0], options, session, options.every, say)
        reports = [report]
        if options.plot:
            plot.timeline(options.plot, rows, bundle.program.labels, f"{bundle.name}: {samples[0].path}")
    else:
        reports = _many(bundle, samples, options, session, say)
    scores = _accuracy(reports)
    for split, score in scores.items():
        low, high = (100 * bound for bound in score["interval"])
        say(f"{split}: {score['correct']} of {score['recordings']} right = {100 * score['accuracy']:.1f} % "
            f"(95 % interval {low:.1f} to {high:.1f} %)")  # fmt: skip
    if options.json:
        head = {"bundle": str(bundle.root), "name": bundle.name, "target": bundle.target}
        print(json.dumps({**head, "recordings": reports, "accuracy": scores}, indent=1))
    return 0


def _sessions(bundle: Bundle, threads: int, provider: str = CPU) -> Callable[[float], Session]:
    """Opens a session for a tick length, or returns the one that is open already."""
    opened: dict[float, Session] = {}

    def session(tick_us: float) -> Session:
        if tick_us not in opened:
            opened[tick_us] = open_session(bundle, tick_us=tick_us, threads=threads, use_chunk=False, provider=provider)
        return opened[tick_us]

    return session


def _one(
    bundle: Bundle,
    sample: Sample,
    options: argparse.Namespace,
    session: Callable[[float], Session],
    every: Interval | None,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], list[Answer]]:
    """One recording with its answers over time."""
    recording, done = inputs.load(sample.path, options, bundle.program.front_end)
    every = every or suit(recording)
    say(f"input     {inputs.describe(recording, done)}\nanswers   every {every}, and at the end\n")
    say(line(COLUMNS, WIDTHS, left=0))
    rows = []
    for answer in answers(session(recording.tick_us), recording, every):
        rows.append(answer)
        remark = "" if answer.events < len(recording.events) else "final"
        say(line(_cells(answer, remark), WIDTHS, left=0))
    truth = "" if sample.label is None else f" (true label {sample.label})"
    say(f"\nanswer    {rows[-1].label}{truth}" + ("" if rows[-1].ready else ", before the first complete group"))
    return _report(sample, rows, done, every), rows


def _many(
    bundle: Bundle,
    samples: Sequence[Sample],
    options: argparse.Namespace,
    session: Callable[[float], Session],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """The final answer of every recording; with `--every`, the answers over time too."""
    reports = []
    folder = _folder([sample.path for sample in samples])
    width = max(len(sample.path) - len(folder) for sample in samples)
    say(f"input     {len(samples)} recordings{f' below {folder}' if folder else ''}\n")
    say(line(("recording", "true", *COLUMNS), (width, 6, *WIDTHS)))
    for sample in samples:
        recording, done = inputs.load(sample.path, options, bundle.program.front_end)
        rows = []
        for answer in answers(session(recording.tick_us), recording, options.every):
            rows.append(answer)
            final = answer.events == len(recording.events)
            wrong = final and sample.label is not None and answer.label != sample.label
            head = (sample.path[len(folder) :], sample.label or "?") if final else ("", "")
            remark = "wrong" if wrong else "final" * bool(options.every and final)
            say(line((*head, *_cells(answer, remark)), (width, 6, *WIDTHS)))
        reports.append(_report(sample, rows, done, options.every))
    say("")
    return reports


def _folder(paths: Sequence[str]) -> str:
    """What all paths begin with, up to a slash."""
    low, high = min(paths), max(paths)
    same = next((k for k, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[: low.rfind("/", 0, same) + 1]


def _cells(answer: Answer, remark: str) -> tuple[str, ...]:
    return (
        f"{answer.time_ms:.3f} ms",
        str(answer.events),
        answer.label,
        f"{answer.probability:.3f}",
        f"{answer.margin:.3f}",
        remark if answer.ready else "warming up",
    )


def _report(
    sample: Sample, rows: Sequence[Answer], done: Sequence[dict[str, Any]], every: Interval | None
) -> dict[str, Any]:
    return {
        "source": sample.path,
        "true_label": sample.label,
        "split": sample.split,
        "adapters": list(done),
        "every": str(every) if every else None,
        "answers": [answer.to_json() for answer in rows],
        "final": rows[-1].to_json(),
    }


def _accuracy(reports: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per split, how many labelled recordings were answered rightly; nothing for a single recording."""
    scores: dict[str, dict[str, Any]] = {}
    labelled = [report for report in reports if report["true_label"] is not None]
    for split in dict.fromkeys(report["split"] or "all" for report in labelled if len(labelled) > 1):
        right = [r["final"]["label"] == r["true_label"] for r in labelled if (r["split"] or "all") == split]
        total, correct = len(right), sum(right)
        accuracy = {"recordings": total, "correct": correct, "accuracy": correct / total}
        scores[split] = {**accuracy, "interval": list(interval(correct, total))}
    return scores


if __name__ == "__main__":
    sys.exit(main())
