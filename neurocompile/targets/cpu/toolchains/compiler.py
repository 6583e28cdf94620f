"""C compilers: the system's cc, and `ziglang` from PyPI, which also compiles for other processors."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
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
        crosses: Whether it is the one that has every processor's C library with it.
    """

    command: tuple[str, ...]
    name: str
    crosses: bool = False

    def run(self, *arguments: str, source: str = "") -> str:
        """Runs the compiler.

        Returns:
            What it printed.

        Raises:
            InternalError: If it fails; with what it said.
        """
        done = self._start(arguments, source)
        if done.returncode:
            raise InternalError(f"{self.name} does not compile the generated code: {done.stderr.strip()[:2000]}")
        return done.stdout

    def version(self) -> str:
        """The first line of `--version`, after the name where that line does not tell."""
        line = self.run("--version").splitlines()[0]
        return f"{self.name}, {line}" if self.crosses else line

    def macros(self, flags: tuple[str, ...]) -> frozenset[str]:
        """Names of the macros that these flags predefine."""
        return frozenset(line.split()[1] for line in self.run(*flags, "-dM", "-E", "-x", "c", "-").splitlines())

    def library(self, source: Path, output: Path, flags: tuple[str, ...]) -> None:
        """Compiles one file into a shared library."""
        # The one that crosses writes debug information unless told not to.
        quiet = ("-g0",) if self.crosses else ()
        self.run(*FLAGS, *quiet, *flags, f"-Wl,-soname,{output.name}", str(source), "-o", str(output), "-lm")

    def refusal(self, flags: tuple[str, ...], source: str) -> str:
        """Why it cannot make a library of `source` with these flags: the first line it says; empty if it can.

        What crosses has its libraries with it, and is spared the link.
        """
        with tempfile.TemporaryDirectory() as folder:
            kind = ("-c",) if self.crosses else ("-shared",)
            output = str(Path(folder) / "probe")
            done = self._start((*flags, "-fPIC", *kind, "-x", "c", "-", "-o", output, "-lm"), source)
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        return (lines[0].strip() if lines else "no reason given") if done.returncode else ""

    def _start(self, arguments: tuple[str, ...], source: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LC_ALL": "C"}
        return subprocess.run(
            [*self.command, *arguments], input=source, capture_output=True, text=True, env=environment
        )


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
    return Compiler((sys.executable, "-m", "ziglang", "cc"), "ziglang", crosses=True)


def find_compiler() -> Compiler:
    """The compiler for this machine.

    Raises:
        UserError: If there is none.
    """
    compiler = system_compiler() or zig_compiler()
    if compiler is None:
        raise UserError(f"no C compiler found; {INSTALL}")
    return compiler
