"""Bundles that ship C: compiled once on the machine that runs them, refused in one sentence where that cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from runtime import verify
from runtime.backends import source
from runtime.bench.__main__ import main as bench
from runtime.bundle import open_bundle
from runtime.errors import UserError
from runtime.events.shipped import samples
from runtime.open import SHIPPED_SOURCE, fastest_shipped_bundle, open_session, shipped_bundle

needs_compiler = pytest.mark.skipif(source.obstacle() is not None, reason="no C compiler on this machine")


@pytest.fixture
def bundle():
    return open_bundle(SHIPPED_SOURCE)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@needs_compiler
def test_compiles_once_and_answers_like_the_onnx_form(bundle):
    _, recording = next(samples("test"))
    sessions = [open_session(bundle, require_proof=False), open_session(open_bundle(shipped_bundle()))]
    for session in sessions:
        session.push(recording.events)
    first, second = (session.readout() for session in sessions)
    np.testing.assert_allclose(first, second, atol=1e-4 * np.abs(second).max())
    made = source.library(bundle)
    before = made.stat().st_mtime_ns
    assert source.library(bundle).stat().st_mtime_ns == before
    assert [path.name for path in made.parent.iterdir()] == [made.name]


@needs_compiler
def test_runs_after_a_verification_on_this_machine(bundle):
    with pytest.raises(UserError, match="proxy: compiled here .* run `python -m runtime.verify"):
        open_session(bundle)
    assert verify.main([str(SHIPPED_SOURCE)]) == 0
    assert open_session(bundle).readout().shape == (10,)


def test_without_a_compiler_it_is_refused_and_the_shipped_model_falls_back(bundle, monkeypatch, capsys):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"holds C source, .* there is no C compiler"):
        source.library(bundle)
    path, reason = fastest_shipped_bundle()
    assert path == shipped_bundle() and "no C compiler" in reason
    assert bench(["--batch", "1", "--events", "300", "--warmup", "10"]) == 0
    printed = capsys.readouterr()
    assert "no C compiler" in printed.err and "onnx-fp32" in printed.out


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(bundle, tmp_path, monkeypatch):
    broken = tmp_path / "broken-cc"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 && exit 0\necho "no such flag" >&2\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(UserError, match="cannot compile its source here: no such flag"):
        source.library(bundle)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
