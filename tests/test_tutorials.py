"""The tutorials hold: their blocks run in order, print what the page shows, and do what its text says."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.open import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")
SECONDS = 300


@dataclass
class Run:
    """What the blocks of a page left behind.

    Attributes:
        folder: The folder they ran in.
        names: What the Python blocks defined.
        outputs: What each block printed, in order.
    """

    folder: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "tutorial"})
    outputs: list[str] = field(default_factory=list)

    def printed_by(self, command: str, text: str) -> str:
        """The output of the only block of the page that contains `command`."""
        sources = [block for kind, block, _ in blocks(text) if kind in ("bash", "python")]
        (place,) = [number for number, source in enumerate(sources) if command in source]
        return self.outputs[place]


def blocks(text: str) -> list[tuple[str, str, int]]:
    """Kind, content and first line of every fenced block."""
    return [(found[1], found[2], text.count("\n", 0, found.start()) + 1) for found in FENCE.finditer(text)]


def run(text: str, name: str, folder: Path) -> Run:
    """Runs the blocks of a page in the current folder.

    `python` blocks share one namespace, `bash` blocks are programs of their own, `text` shows what the block above it
    prints: these lines in this order, whatever lies between them. Numbers are compared as numbers of any value, runs of
    spaces as one, and `...` stands for anything.
    """
    done = Run(folder)
    for kind, content, line in blocks(text):
        where = f"{name}, line {line}"
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile("\n" * line + content, name, "exec"), done.names)
            done.outputs.append(printed.getvalue())
        elif kind == "bash":
            found = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", content], capture_output=True, text=True, timeout=SECONDS
            )
            assert found.returncode == 0, f"{where}: exit code {found.returncode}\n{found.stdout}\n{found.stderr}"
            done.outputs.append(found.stdout)
        else:
            assert kind == "text", f"{where}: a block is python, bash or text"
            missing = unseen(content, done.outputs[-1])
            assert missing is None, f"{where}: {missing!r} is not printed (any more):\n{done.outputs[-1]}"
    return done


def unseen(sample: str, printed: str) -> str | None:
    """The first line of a sample that the output does not have where it should."""
    rest = iter([normal(line) for line in printed.splitlines()])
    for line in sample.splitlines():
        wanted = re.compile(".*".join(re.escape(part) for part in normal(line).split("...")))
        if line.strip() not in ("", "...") and not any(wanted.fullmatch(candidate) for candidate in rest):
            return line
    return None


def normal(line: str) -> str:
    return NUMBER.sub("#", " ".join(line.split()))


@pytest.fixture
def page(request, tmp_path, monkeypatch) -> tuple[str, Run]:
    """The text of a tutorial and what its blocks left in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    path = ROOT / "docs" / "tutorials" / request.param
    text = path.read_text()
    return text, run(text, path.name, tmp_path)


def assert_picture(path: Path) -> None:
    """A PNG with something on it."""
    from matplotlib.image import imread

    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = imread(path)
    assert min(pixels.shape[:2]) >= 300
    assert pixels[..., :3].std() > 0.01


@pytest.mark.parametrize("page", ["train_and_deploy.md"], indirect=True)
def test_train_and_deploy(page):
    text, done = page
    # Guessing is right once in two; 18 of 23 or better happens by chance once in 200.
    metrics = done.names["metrics"]
    assert metrics["test/accuracy"] >= 0.78
    assert metrics["epochs"] == 30
    right, total = re.search(r"test: (\d+) of (\d+) right", done.printed_by("test/4 nmnist_mini/test/7", text)).groups()
    assert int(total) == 23
    assert int(right) == round(23 * metrics["test/accuracy"])
    manifest = json.loads((done.folder / "digits.neuro" / "manifest.json").read_text())
    assert manifest["parity"]["status"] == "proved"
    assert manifest["program"]["labels"] == ["4", "7"]
    assert "PASS" in done.printed_by("neurocompile verify", text)
    assert abs(done.names["online"] - done.names["offline"]).max() < 1e-4 * abs(done.names["offline"]).max()
    assert len(done.names["events"]) == 3330
    assert_picture(done.folder / "answer.png")


@pytest.mark.parametrize("page", ["online_inference.md"], indirect=True)
def test_online_inference(page):
    _, done = page
    names = done.names
    stream, logits, probabilities = names["stream"], np.array(names["logits"]), names["probabilities"]
    assert logits.shape == probabilities.shape == (len(stream), 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    assert probabilities[-1].argmax() == names["label"]
    # What the page says of this recording: wrong at first, sure of a 4 in between, right from 120 ms on.
    times, best = np.array(names["times"]), probabilities.argmax(axis=1)
    assert (best[(times > 20) & (times < 30)] != names["label"]).all()
    assert probabilities[(times > 60) & (times < 100), 4].min() > 0.9
    assert (best[times > 120] == names["label"]).all()
    assert_picture(done.folder / "probabilities.png")
    # The bias until the first complete group, and something else from then on.
    first = names["bundle"].program.first_readout
    assert (logits[: first - 1] == logits[0]).all()
    assert (logits[first - 1] != logits[0]).all()
    # Steps only where a group of groups is complete.
    steps = np.argsort(abs(np.diff(logits, axis=0)).max(axis=1))[-20:]
    assert ((steps + 2) % first == 0).all()
    assert names["difference"] < 1e-5
    assert names["switches"] > 1000
    assert len({answer.tobytes() for answer in names["interleaved"]}) == 3
    answered = [int(answer.argmax()) for answer in names["interleaved"]]
    assert sum(answer == truth for answer, (truth, _) in zip(answered, names["cameras"], strict=True)) >= 2
    figures = names["report"]["modes"]["event and answer"]
    assert figures["events"] == 5000
    assert 0 < figures["p50_us"] <= figures["max_us"]
    assert names["report"]["bundle"] == str(SHIPPED)


def test_the_program_on_the_front_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (source,) = [content for kind, content, _ in blocks((ROOT / "README.md").read_text()) if kind == "python"]
    (bundle,) = re.findall(r'"(\w+\.neuro)"', source)
    (tmp_path / bundle).symlink_to(SHIPPED, target_is_directory=True)
    names: dict[str, Any] = {"events": [(1000 * k, k % 34, 5, k % 2 == 0) for k in range(100)]}
    exec(source, names)
    assert names["session"].items == 100
    assert names["logits"].shape == (10,)


@pytest.mark.parametrize(
    ("sample", "printed", "missing"),
    [
        ("loss 0.31  left\n", "begin\nloss -1.5e-3 left\nend\n", None),
        ("a\n...\nc\n", "a\nb\nc\n", None),
        ("PASS in 3 s on ...\n", "PASS in 1.5 s on some machine\n", None),
        ("a\nb\n", "b\na\n", "b"),
        ("exact words", "exact words and more", "exact words"),
        ("wrong", "right", "wrong"),
    ],
)
def test_samples_are_compared(sample, printed, missing):
    assert unseen(sample, printed) == missing


def test_a_block_that_fails_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="page, line 3: exit code 3"):
        run("text\n\n```bash\ntrue\nexit 3\n```\n", "page", tmp_path)
    with pytest.raises(AssertionError, match="exit code 1"):
        run("```bash\nfalse | true\n```\n", "page", tmp_path)
    with pytest.raises(ZeroDivisionError):
        run("```python\na = 0\n```\n```python\n1 / a\n```\n", "page", tmp_path)
