"""What takes minutes to compile is compiled once per graph, compiler and processor."""

from __future__ import annotations

import pytest

from benchmarks.step_latency.peers.cache import kept
from runtime import machine


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_same_graph_is_made_once_and_another_again(monkeypatch):
    made = []

    def make() -> bytes:
        made.append(len(made))
        return b"%d" % made[-1]

    assert [kept(b"graph", "numpy", "O3", make) for _ in range(3)] == [b"0"] * 3
    assert kept(b"other", "numpy", "O3", make) == b"1"
    assert kept(b"graph", "onnx", "O3", make) == b"2"
    assert kept(b"graph", "numpy", "O2", make) == b"3"
    monkeypatch.setattr(machine, "cpu_model", lambda: "another")
    assert kept(b"graph", "numpy", "O3", make) == b"4"
    assert kept(b"graphO", "numpy", "3", make) == b"5"


def test_a_compiler_that_fails_leaves_nothing(folder):
    def make() -> bytes:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        kept(b"graph", "numpy", "", make)
    assert not list(folder.rglob("*.*"))
    assert kept(b"graph", "numpy", "", lambda: b"good") == b"good"
