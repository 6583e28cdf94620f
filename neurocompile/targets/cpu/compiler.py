"""The C compiler: the system's cc, or `ziglang` from PyPI."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from runtime.backends.source import FLAGS
from runtime.errors import InternalError, UserError

INSTALL = "install a C compiler (Debian: apt install gcc) or pip install ziglang"


@dataclass(frozen=True)
class Compiler:
    """A command that compiles C.

    Attributes:
        command: The command and its fixed arguments.
        name: For reports.
    """

    command: tuple[str, ...]
    name: str

    def run(self, *arguments: str, source: str = "") -> str:
        """Runs the compiler.

        Returns:
            What it printed.

        Raises:
            InternalError: If it fails; with what it said.
        """
        done = subprocess.run(
            [*self.command, *arguments], input=source, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
        )
        if done.returncode:
            raise InternalError(f"{self.name} does not compile the generated code: {done.stderr.strip()[:2000]}")
        return done.stdout

    def version(self) -> str:
        """The first line of `--version`."""
        return self.run("--version").splitlines()[0]

    def macros(self, flags: tuple[str, ...]) -> frozenset[str]:
        """Names of the macros that these flags predefine."""
        return frozenset(line.split()[1] for line in self.run(*flags, "-dM", "-E", "-x", "c", "-").splitlines())

    def library(self, source: Path, output: Path, flags: tuple[str, ...]) -> None:
        """Compiles one file into a shared library."""
        self.run(*FLAGS, *flags, f"-Wl,-soname,{output.name}", str(source), "-o", str(output), "-lm")


@lru_cache(maxsize=1)
def system_compiler() -> Compiler | None:
    """`$CC`, cc, gcc or clang; `None` where there is none."""
    candidates = [shlex.split(os.environ["CC"])] if os.environ.get("CC") else []
    for command in (*candidates, ["cc"], ["gcc"], ["clang"]):
        if shutil.which(command[0]):
            return Compiler(tuple(command), command[0])
    return None


def zig_compiler() -> Compiler | None:
    """The compiler in the `ziglang` package; `None` where it is not installed."""
    if find_spec("ziglang") is None:
        return None
    return Compiler((sys.executable, "-m", "ziglang", "cc"), "ziglang")


def find_compiler() -> Compiler:
    """The compiler for this machine.

    Raises:
        UserError: If there is none.
    """
    compiler = system_compiler() or zig_compiler()
    if compiler is None:
        raise UserError(f"no C compiler found; {INSTALL}")
    return compiler
