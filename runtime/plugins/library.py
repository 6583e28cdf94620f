"""The library of C++ plugins that a bundle's graphs need: compiled on this machine by the bundle's own script.

NAME.plugins/                 beside NAME.neuro
libneurocompile_plugins.so    the library
plugins.json                  its SHA-256, a digest of the sources it was made of, and whose headers it was made with

Everything is compared before the library is loaded, for loading it runs its code.
"""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

from runtime.bundle import Bundle
from runtime.engines import Host, plugins_of
from runtime.errors import UserError

KIND = "cpp"
SCRIPT = "build_plugins.sh"
TABLE = "plugins.json"
LIBRARY = "libneurocompile_plugins.so"

_registered: dict[str, str] = {}
"""Name of a plugin -> SHA-256 of the library that this process took it from."""


def creators_of(bundle: Bundle) -> list[str]:
    """Names of the C++ plugins that a bundle's graphs need; empty if they need none."""
    target = bundle.manifest["target"]
    return list(target.get("plugin_names", [])) if target.get("plugin_kind") == KIND else []


def folder_of(bundle: Bundle) -> Path:
    """Where the library of a bundle is, or would be."""
    return bundle.root.absolute().with_suffix(".plugins")


def sources_digest(bundle: Bundle) -> str:
    """What `sha256sum` says of the list that `sha256sum` makes of the sources."""
    files = bundle.manifest["files"]
    lines = (f"{files[path]['sha256']}  {path}\n" for path in sorted(plugins_of(bundle)))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check(bundle: Bundle, host: Host) -> Path:
    """Finds the library and holds it against the bundle and this machine.

    Args:
        bundle: A bundle of which `creators_of` names some.
        host: This machine.

    Returns:
        Its path.

    Raises:
        UserError: If there is none, or it was changed, or made of other sources, for another TensorRT or processor.
    """
    folder = folder_of(bundle)
    again = f"run `bash {bundle.root / SCRIPT}`"
    try:
        table = json.loads((folder / TABLE).read_text())
        path = folder / LIBRARY
        recorded = {key: str(table[key]) for key in ("sha256", "sources", "tensorrt", "machine")}
        data = path.read_bytes()
    except FileNotFoundError as error:
        missing = creators_of(bundle)[0]
        raise UserError(
            f"{bundle.root} needs the plugin {missing}, which is compiled where it runs and was not yet; {again}"
        ) from error
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); {again} again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / TABLE} is no table of plugins ({error}); {again} again") from error
    if hashlib.sha256(data).hexdigest() != recorded["sha256"]:
        raise UserError(f"{path} is not the library that was compiled (its SHA-256 differs); {again} again")
    if recorded["sources"] != sources_digest(bundle):
        raise UserError(f"{path} was compiled from other sources than those of {bundle.root}; {again} again")
    if recorded["tensorrt"].split(".")[0] != host.tensorrt.split(".")[0]:
        raise UserError(
            f"{path} was compiled for TensorRT {recorded['tensorrt']} and this machine has {host.tensorrt}; "
            f"{again} again"
        )
    if recorded["machine"] != platform.machine():
        raise UserError(
            f"{path} was compiled on {recorded['machine']} and this machine is {platform.machine()}; {again} here"
        )
    return path


def register(bundle: Bundle, host: Host, trt: Any) -> None:
    """Makes TensorRT know the C++ plugins of a bundle; does nothing for a bundle without.

    Args:
        bundle: The bundle.
        host: This machine.
        trt: The module `tensorrt`.

    Raises:
        UserError: As `check`, or if TensorRT does not take the library.
    """
    names = creators_of(bundle)
    if not names:
        return
    path = check(bundle, host)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if all(_registered.get(name) == digest for name in names):
        return
    if taken := [name for name in names if name in _registered]:
        raise UserError(
            f"this process has loaded another library with the plugin {taken[0]}; use {bundle.root} in a new one"
        )
    registry = trt.get_plugin_registry()
    handle = registry.load_library(str(path))
    # Where it cannot load a library, TensorRT returns nothing and says nothing.
    present = {creator.name for creator in registry.all_creators}
    if missing := [name for name in names if name not in present]:
        why = "lacks it" if handle is not None else f"cannot be loaded by TensorRT {trt.__version__}"
        raise UserError(
            f"{path} should hold the plugin {missing[0]} and {why}; run `bash {bundle.root / SCRIPT}` again"
        )
    _registered.update(dict.fromkeys(names, digest))
