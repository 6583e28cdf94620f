"""The floors of docs/architecture.md, kept true: what each room may import, and that `runtime` runs on numpy alone."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up; the longest name that fits a module is its room. Rooms of the compiler may import one another,
# `runtime` serves every floor, and the rooms of the top floor know nothing of each other.
COMMANDS = ("cli", "__main__", "console", "doctor", "info")
FLOORS = (
    ("runtime",),
    ("neurocompile.ops", "neurocompile.program"),
    ("models",),
    ("neurocompile",),  # the compiler: capture, passes, lowering, targets, reference, parity
    ("export",),
    (*(f"neurocompile.{part}" for part in COMMANDS), "train", "benchmarks"),
)
TOP = len(FLOORS) - 1
HOUSE = {room.partition(".")[0] for floor in FLOORS for room in floor}
ON_DEMAND = {("runtime/plot.py", "matplotlib")}  # asked for when a picture is wanted, never at import
BACKENDS = {"onnxruntime", "tensorrt", "cuda"}
STDLIB = sys.stdlib_module_names - {"tomllib", "compression", "annotationlib", "concurrent.interpreters"}  # not in 3.10


def room_of(module: str) -> tuple[int, str]:
    """Floor and room of a module of the house; the bare package `neurocompile` is ground, for it loads nothing."""
    if module == "neurocompile" or module.startswith("neurocompile.__version"):
        return 1, "neurocompile.program"
    fits = [
        (room, level) for level, floor in enumerate(FLOORS) for room in floor if f"{module}.".startswith(f"{room}.")
    ]
    room, level = max(fits, key=lambda fit: len(fit[0]))
    return level, room


def imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute module of every import in `tree`, those in functions and `import_module("name")` included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            # `from neurocompile import cli` reaches neurocompile.cli; any other name is in its module's room.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def violations(source: str, path: str) -> list[str]:
    """Every broken rule of one file as `file:line: rule`.

    Args:
        source: The file's text.
        path: Its path from the root of the checkout, `runtime/backends/ort.py`.
    """
    parts = path.removesuffix(".py").split("/")
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    package = module if is_package else ".".join(parts[:-1])
    level, room = room_of(module)
    found, libraries = [], set()
    tree = ast.parse(source, path, feature_version=(3, 10))
    for line, name in imports(tree, package):
        top = name.partition(".")[0]
        if top in HOUSE:
            other_level, _ = room_of(name)
            sideways = level == other_level == TOP and top != module.partition(".")[0]
            if other_level > level or sideways:
                found.append(f"{path}:{line}: {room} imports {name}, which is not below it")
        elif room == "runtime" and top not in STDLIB | {"numpy"} and (path, top) not in ON_DEMAND:
            libraries.add(top)
            if not path.startswith("runtime/backends/"):
                found.append(f"{path}:{line}: runtime imports {name}; outside runtime/backends it has numpy alone")
            elif top not in BACKENDS:
                found.append(f"{path}:{line}: runtime imports {name}, which is no backend library {sorted(BACKENDS)}")
            elif len(libraries) > 1:
                found.append(f"{path}:{line}: one backend file imports {sorted(libraries)}; it may use one library")
    if is_command(path, tree) and not any(name.startswith("argparse") for _, name in imports(tree, package)):
        found.append(f"{path}:1: a command of runtime reads its arguments with argparse")
    return found


def is_command(path: str, tree: ast.Module) -> bool:
    """Whether a file is one of the runtime's commands, `python -m runtime.NAME`."""
    guarded = any("__name__" in ast.unparse(node.test) for node in tree.body if isinstance(node, ast.If))
    return path.startswith("runtime/") and (path.endswith("/__main__.py") or (guarded and path.count("/") == 1))


def house_files() -> list[Path]:
    """Every Python file of the house, caches and environments aside."""
    return sorted(path for package in HOUSE for path in (ROOT / package).rglob("*.py"))


def test_every_room_keeps_to_its_floor() -> None:
    found = [v for path in house_files() for v in violations(path.read_text(), path.relative_to(ROOT).as_posix())]
    assert not found, "\n" + "\n".join(found)


def test_the_page_names_every_room() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    floors = page.partition("## Floors")[2].partition("\n## ")[0]
    rooms = {room for floor in FLOORS for room in floor} - {f"neurocompile.{part}" for part in COMMANDS[1:]}
    missing = [room for room in sorted(rooms) if room.rpartition(".")[2] not in floors]
    assert not missing, f"docs/architecture.md, section Floors, does not name {missing}"


@pytest.mark.parametrize(
    ("path", "source", "rule"),
    [
        ("runtime/bench.py", "import torch", "runtime/bench.py:1: runtime imports torch"),
        (
            "runtime/a.py",
            "def f():\n    from neurocompile import program",
            "runtime/a.py:2: runtime imports neurocompile.program",
        ),
        ("runtime/a.py", "import tomllib", "outside runtime/backends it has numpy alone"),
        ("runtime/a.py", "import importlib\nimportlib.import_module('onnx')", "runtime/a.py:2: runtime imports onnx"),
        ("runtime/backends/ort.py", "import torch", "which is no backend library"),
        ("runtime/backends/both.py", "import tensorrt\nimport onnxruntime", "it may use one library"),
        ("runtime/run.py", "if __name__ == '__main__':\n    print()", "with argparse"),
        ("runtime/events/a.py", "from ...models import zoo", "runtime imports models.zoo"),
        ("neurocompile/program.py", "import models.event_ssm", "imports models"),
        (
            "neurocompile/ops/a/lower.py",
            "from neurocompile.lowering import loop",
            "imports neurocompile.lowering",
        ),
        ("models/a.py", "if TYPE_CHECKING:\n    import neurocompile.capture", "models/a.py:2: models imports"),
        ("neurocompile/capture.py", "import export", "imports export"),
        ("export/a.py", "from neurocompile.cli import main", "imports neurocompile.cli"),
        ("train/a.py", "import benchmarks", "imports benchmarks"),
    ],
)
def test_a_broken_rule_is_found(path: str, source: str, rule: str) -> None:
    found = violations(source, path)
    assert len(found) == 1, found
    assert rule in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "runtime/a.py",
            "from . import program\nimport numpy.lib\nimport argparse, json\nfrom runtime.events import Events",
        ),
        ("runtime/backends/ort.py", "import numpy\nimport onnxruntime"),
        ("runtime/run.py", "import argparse\nif __name__ == '__main__':\n    print()"),
        ("neurocompile/program.py", "import torch\nfrom runtime.program import ProgramSpec"),
        ("models/a.py", "from neurocompile.ops import diagonal_scan\nfrom neurocompile.program import StreamProgram"),
        ("neurocompile/targets/onnx.py", "from neurocompile.passes import hoist\nimport models"),
        ("benchmarks/a.py", "import export, runtime, models\nfrom neurocompile import parity"),
    ],
)
def test_a_kept_rule_is_not_reported(path: str, source: str) -> None:
    assert violations(source, path) == []


# Runs in a bare interpreter: imports every module of `runtime` while everything but numpy is out of reach.
IMPORT_RUNTIME = """
import importlib, importlib.abc, pathlib, sys

class OnlyNumpy(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("runtime", "numpy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=top)

sys.path.insert(0, sys.argv[1])
import numpy
sys.meta_path.insert(0, OnlyNumpy())
for path in sorted(pathlib.Path("runtime").rglob("*.py")):
    if path.stem == "__main__":
        continue
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not (name.startswith("runtime.backends.") and error.name in sys.argv[2].split(",")):
            raise SystemExit(f"{path} does not import on Python {sys.version.split()[0]} with numpy alone: {error}")
print("ok")
"""


def import_runtime(python: str) -> None:
    command = [python, "-c", IMPORT_RUNTIME, str(ROOT), ",".join(BACKENDS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "ok", done.stderr


def test_runtime_imports_on_numpy_alone() -> None:
    import_runtime(sys.executable)


def test_runtime_imports_on_python_3_10() -> None:
    homes = (ROOT / ".venv-3.10", *Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.10.*"))
    named = (
        os.environ.get("NEUROCOMPILE_PYTHON310"),
        shutil.which("python3.10"),
        *(home / "bin/python" for home in homes),
    )
    check = "import sys, numpy; sys.exit(sys.version_info[:2] != (3, 10))"
    for python in filter(None, named):
        if Path(python).exists() and not subprocess.run([python, "-c", check], capture_output=True).returncode:
            return import_runtime(str(python))
    pytest.skip("no Python 3.10 with numpy here: `make oldest` makes one, NEUROCOMPILE_PYTHON310 names one")
