"""The command `neurocompile`: export, verify, info, targets, doctor."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from runtime.errors import UserError, guard

INTERRUPTED = 130
"""What the command line library makes of Ctrl-C."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compile trained event models into bundles that answer every single event.",
)

Roi = Annotated[Optional[str], typer.Option("--roi", metavar="X,Y,W,H", help="Crop the recording to a region.")]  # noqa: UP045
Resize = Annotated[Optional[str], typer.Option("--resize", metavar="WxH", help="Scale it to this size, after --roi.")]  # noqa: UP045
Size = Annotated[Optional[str], typer.Option("--size", metavar="WxH", help="Sensor size, where the file does not say.")]  # noqa: UP045
Tick = Annotated[Optional[float], typer.Option("--tick-us", metavar="US", help="Length of a tick, likewise.")]  # noqa: UP045
Format = Annotated[Optional[str], typer.Option("--format", metavar="NAME", help="File format, likewise.")]  # noqa: UP045
Sort = Annotated[bool, typer.Option("--sort", help="Sort its events by time.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def export(
    model: Annotated[Path, typer.Option("--model", help="Checkpoint: .safetensors, .ckpt, .pt, or a Flax folder.")],
    target: Annotated[str, typer.Option("--target", help="BACKEND-DTYPE[@DEVICE]; see `neurocompile targets`.")],
    output: Annotated[Optional[Path], typer.Option("-o", "--output", help="Bundle folder [NAME.neuro].")] = None,  # noqa: UP045
    preset: Annotated[Optional[str], typer.Option(help="Published configuration, e.g. dvs/small.")] = None,  # noqa: UP045
    config: Annotated[Optional[Path], typer.Option(help="Configuration file of the checkpoint.")] = None,  # noqa: UP045
    recording: Annotated[Optional[Path], typer.Option("-i", "--recording", help="Sequence for parity.")] = None,  # noqa: UP045
    roi: Roi = None,
    resize: Resize = None,
    sort: Sort = False,
    size: Size = None,
    tick_us: Tick = None,
    file_format: Format = None,
    tensorrt: Annotated[Optional[str], typer.Option(help="10.3, 10 or 11, for trt-* targets.")] = None,  # noqa: UP045
    plugins: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="none, aot, cpp or auto, for trt-* targets: who computes scans and attention. [none]"),
    ] = None,
    calibrate: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            "--calibrate",
            metavar="RECORDING",
            help="cpu-bf16, int8, fp8: fit rounding to this recording; may be repeated. [shipped training recordings]",
        ),
    ] = None,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="cpu-*: spread rare work over the events that follow; answers lag.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Prove parity over 100 000 events.")] = False,
    trust_pickle: Annotated[bool, typer.Option(help="Let a checkpoint run the code it contains.")] = False,
    as_json: Json = False,
) -> None:
    """Lower a checkpoint for a target, prove parity, write the bundle."""
    from export.jetson import export_kit, wants_kit
    from export.pipeline import export_model
    from neurocompile.console import progress, show_export
    from neurocompile.targets import find_target

    reading = {"roi": roi, "resize": resize, "sort": sort, "size": size, "tick_us": tick_us, "format": file_format}
    sequence, adapters = _recording(recording, reading) if recording else (None, [])
    calibrate_on = [_recording(path, reading)[0] for path in calibrate or ()]
    with progress(quiet=as_json) as (step, announce):
        maker = export_kit if wants_kit(find_target(target, tensorrt, plugins=plugins), output) else export_model
        result = maker(
            model,
            target,
            output,
            preset=preset,
            config=config,
            trust_pickle=trust_pickle,
            recording=sequence,
            adapters=adapters,
            full=full,
            progress=step,
            announce=announce,
            tensorrt=tensorrt,
            smooth=smooth,
            plugins=plugins,
            calibrate_on=calibrate_on,
        )
    _print(result.manifest) if as_json else show_export(result)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="The NAME.neuro folder.")],
    recording: Annotated[Optional[Path], typer.Option("-i", "--recording", help="Replay this recording too.")] = None,  # noqa: UP045
    provider: Annotated[str, typer.Option(help="cpu, cuda or tensorrt: what runs an onnx-* bundle.")] = "cpu",
    roi: Roi = None,
    resize: Resize = None,
    sort: Sort = False,
    size: Size = None,
    tick_us: Tick = None,
    file_format: Format = None,
    as_json: Json = False,
) -> None:
    """Check a bundle's files and replay its golden trace on this machine."""
    from runtime import verify as command

    given: dict[str, Any] = {"-i": recording, "--provider": provider, "--roi": roi, "--resize": resize}
    given |= {"--size": size, "--tick-us": tick_us, "--format": file_format}
    arguments = [text for option, value in given.items() if value is not None for text in (option, str(value))]
    switches = [option for option, on in {"--sort": sort, "--json": as_json}.items() if on]
    raise typer.Exit(command.main([str(bundle), *arguments, *switches]))


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="A checkpoint, bundle, ONNX file or recording.")],
    preset: Annotated[Optional[str], typer.Option(help="Published configuration of a checkpoint.")] = None,  # noqa: UP045
    config: Annotated[Optional[Path], typer.Option(help="Configuration file of a checkpoint.")] = None,  # noqa: UP045
    as_json: Json = False,
) -> None:
    """Say what a file is."""
    from neurocompile.info import describe

    table = describe(file, preset, config)
    _print(table) if as_json else _show_table(table)


@app.command()
def targets(as_json: Json = False) -> None:
    """List every target and what this machine can do with it."""
    from neurocompile.targets import TARGETS, availability, devices

    rows = {**{name: availability(name) for name in TARGETS}, **devices()}
    if as_json:
        _print({name: {"build": row.build or "can build", "run": row.run or "can run"} for name, row in rows.items()})
        return
    width = max(map(len, rows))
    for name, row in rows.items():
        print(f"{name:{width}} {row.build or 'can build':32} {row.run or 'can run'}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has, what is missing, and how to get it."""
    from neurocompile.doctor import examine, show

    findings = examine()
    _print([finding.__dict__ for finding in findings]) if as_json else show(findings)


def _recording(path: Path, reading: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """A recording as the user wants it read and cut; whether the model can take it is known once that is open."""
    from argparse import Namespace

    from runtime import inputs
    from runtime.events import parse_roi, parse_size

    options = Namespace(**reading, limit=None)
    for name, parse in (("roi", parse_roi), ("resize", parse_size), ("size", parse_size)):
        setattr(options, name, reading[name] and parse(reading[name]))
    return inputs.load(str(path), options, {})


def _print(table: Any) -> None:
    print(json.dumps(table, indent=1))


def _show_table(table: dict[str, Any], indent: str = "") -> None:
    width = max(len(key) for key in table)
    for key, value in table.items():
        if isinstance(value, dict) and value:
            print(f"{indent}{key}")
            _show_table(value, indent + "  ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            print(f"{indent}{key:{width}}  {text}")


def main() -> None:
    """The console script; exit codes as in `runtime.errors`."""
    sys.exit(guard(_run))


def _run() -> int:
    """Usage errors of the command line library become one line and exit code 2, like every other bad input."""
    try:
        code = app(standalone_mode=False) or 0
    except UserError:
        raise
    except typer.Abort:
        code = INTERRUPTED
    except Exception as error:
        # The library's usage errors share this method, whichever package they come from.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        text = message().strip().rstrip(".")
        if text:  # There is none where the help was shown instead.
            print(f"error: {text}; see `neurocompile --help`", file=sys.stderr)
        return 2
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return code


if __name__ == "__main__":
    main()
