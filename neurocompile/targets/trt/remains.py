"""What is left to do where a bundle will run: one sentence, and the scripts in the bundle that do it."""

from __future__ import annotations

from importlib.resources import files

from neurocompile.targets.spec import TargetSpec
from neurocompile.targets.trt.plugged import AOT_FROM
from neurocompile.targets.trt.versions import JETSON, capability, version_of

BUILD, PLUGINS = "build.sh", "build_plugins.sh"


def remaining(target: TargetSpec, plugins: str = "none") -> str:
    """What is left to do, on which machine, in one sentence.

    Args:
        target: For which device and TensorRT.
        plugins: The kind of plugins that the graphs have: `none`, `aot` or `cpp`.
    """
    ran = "" if plugins == "none" else " and no plugin ran anywhere"
    first = "compiles the plugins with the headers of that TensorRT, " if plugins == "cpp" else ""
    return (
        f"no engine was built{ran}: on {wanted(target, plugins)}, run `bash {BUILD}` in the bundle, which {first}"
        "builds the engines there, keeps them, and checks them against the golden trace"
    )


def wanted(target: TargetSpec, plugins: str = "none") -> str:
    """The machine that can run the bundle."""
    number, version = capability(target.device), version_of(target)
    where = f"a {target.device}" if target.device in JETSON else "the machine"
    version = AOT_FROM.get(version, version) if plugins == "aot" else version
    return f"{where} with {f'an sm_{number} GPU' if number else 'its GPU'} and TensorRT {version}"


def scripts(target: TargetSpec, plugins: str = "none") -> dict[str, bytes]:
    """The scripts that do it.

    Args:
        target: As for `remaining`.
        plugins: As for `remaining`.

    Returns:
        Path in the bundle -> script.
    """
    folder = files("neurocompile.targets.trt") / "scripts"
    words = {"TENSORRT": version_of(target), "WANTED": wanted(target, plugins)}
    made = {}
    for name in (BUILD, PLUGINS) if plugins == "cpp" else (BUILD,):
        text = (folder / name).read_text("utf-8")
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        made[name] = text.encode()
    return made
