"""Bundles that ship C instead of a library: compiled once by the machine that runs them, then kept in its cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from runtime import machine
from runtime.bundle import Bundle
from runtime.errors import UserError

SOURCE = "c/model.c"
LIBRARY = {"win32": "libmodel.dll", "darwin": "libmodel.dylib"}.get(sys.platform, "libmodel.so")

# Results must be reproducible: nothing here lets the compiler reorder sums.
FLAGS = (
    *("-std=c17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-plt"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"),
)


def obstacle() -> str | None:
    """Why no source can be compiled here, or `None`."""
    return None if compiler() else "there is no C compiler; install one (Debian: apt install gcc) or set CC"


def compiler() -> list[str] | None:
    """The command of this machine's C compiler: `$CC`, cc, gcc or clang."""
    named = [shlex.split(os.environ["CC"])] if os.environ.get("CC") else []
    return next((command for command in (*named, ["cc"], ["gcc"], ["clang"]) if shutil.which(command[0])), None)


def library(bundle: Bundle) -> Path:
    """The compiled library of a bundle that holds `c/model.c` and none.

    Args:
        bundle: The opened bundle.

    Returns:
        Its path in the cache; made at the first call on this machine, with this compiler.

    Raises:
        UserError: If there is no compiler, it refuses the code, or the cache cannot be written.
    """
    command = compiler()
    if command is None:
        raise UserError(f"{bundle.root} holds C source, which must be compiled here: {obstacle()}")
    source = bundle.read(SOURCE)
    flags = [*FLAGS, _native(platform.machine())]
    version = _run([*command, "--version"], bundle).splitlines()[0]
    key = hashlib.sha256("\n".join([machine.cpu_model(), version, *command, *flags]).encode() + source).hexdigest()
    made = machine.cache_folder() / "compiled" / key[:32] / LIBRARY
    if not made.exists():
        _compile(command, flags, source, made, bundle)
    return made


def _native(architecture: str) -> str:
    """The flag that asks for everything this processor has."""
    return "-march=native" if architecture.lower() in ("x86_64", "amd64", "i686") else "-mcpu=native"


def _compile(command: list[str], flags: list[str], source: bytes, made: Path, bundle: Bundle) -> None:
    # The name stays: two processes may compile at the same time, and whoever renames last changes nothing.
    text, part = (made.with_name(f"{os.getpid()}.{suffix}") for suffix in ("c", "part"))
    try:
        made.parent.mkdir(parents=True, exist_ok=True)
        text.write_bytes(source)
        _run([*command, *flags, str(text), "-o", str(part), "-lm"], bundle)
        part.replace(made)
    except OSError as error:
        raise UserError(
            f"{made} cannot be written ({error.strerror}); point XDG_CACHE_HOME to a folder of yours"
        ) from error
    finally:
        for path in (text, part):
            path.unlink(missing_ok=True)


def _run(command: list[str], bundle: Bundle) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[:500]
        raise UserError(f"{bundle.root}: {command[0]} cannot compile its source here: {said}")
    return done.stdout
