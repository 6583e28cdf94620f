"""What is left to do where a bundle will run: one sentence, and the scripts in the bundle that do it."""

from __future__ import annotations

from importlib.resources import files

from neurocompile.targets.spec import TargetSpec
from neurocompile.targets.trt.versions import JETSON, capability, version_of

BUILD, PLUGINS = "build.sh", "build_plugins.sh"


def remaining(target: TargetSpec, cpp: bool = False) -> str:
    """What is left to do, on which machine, in one sentence.

    Args:
        target: For which device and TensorRT.
        cpp: Whether the graphs need C++ plugins.
    """
    first = "compiles the plugins with the headers of that TensorRT, " if cpp else ""
    return (
        f"no engine was built: on {wanted(target)}, run `bash {BUILD}` in the bundle, which {first}builds the engines "
        "there, keeps them, and checks them against the golden trace"
    )


def wanted(target: TargetSpec) -> str:
    """The machine that can run the bundle."""
    number = capability(target.device)
    where = f"a {target.device}" if target.device in JETSON else "the machine"
    return f"{where} with {f'an sm_{number} GPU' if number else 'its GPU'} and TensorRT {version_of(target)}"


def scripts(target: TargetSpec, cpp: bool = False) -> dict[str, bytes]:
    """The scripts that do it.

    Args:
        target: As for `remaining`.
        cpp: As for `remaining`.

    Returns:
        Path in the bundle -> script.
    """
    folder = files("neurocompile.targets.trt") / "scripts"
    words = {"TENSORRT": version_of(target), "WANTED": wanted(target)}
    made = {}
    for name in (BUILD, PLUGINS) if cpp else (BUILD,):
        text = (folder / name).read_text("utf-8")
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        made[name] = text.encode()
    return made
