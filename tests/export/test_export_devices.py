"""Bundles for processors other than this one: what their manifest says, and when they may run."""

from __future__ import annotations

import pytest

from neurocompile.targets import cpu
from neurocompile.targets.cpu.toolchains.emulation import Emulator
from runtime import verify
from runtime.bundle import open_bundle
from runtime.errors import UserError
from runtime.open import open_session

pytestmark = pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_what_nothing_here_can_run_is_written_and_waits_for_a_verification(run, checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "other.neuro"
    with monkeypatch.context() as patch:
        patch.setattr(cpu.machine, "obstacle", lambda device, **needs: "it was built for another processor")
        patch.setattr(cpu, "find_emulator", lambda architecture, device: "there is no emulator")
        answer = run("export", "--model", checkpoint, "--target", "cpu-fp32", "-o", out)
    assert answer.code == 0, answer.err
    assert "parity    not run: it was built for another processor, and there is no emulator" in answer.out
    assert f"python -m runtime.verify {out}" in answer.out
    bundle = open_bundle(out)
    assert bundle.manifest["target"]["architecture"] and "step" not in bundle.parity
    with pytest.raises(UserError, match=r"parity: not run: it was built .* run `python -m runtime\.verify"):
        open_session(bundle)
    assert verify.main([str(out)]) == 0
    assert open_session(bundle).readout().shape == (3,)


def test_what_an_emulator_runs_is_a_proxy(run, checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "other.neuro"
    with monkeypatch.context() as patch:
        patch.setattr(cpu.machine, "obstacle", lambda device, **needs: "it was built for another processor")
        # No emulator at all: the program that serves a session runs right here.
        emulator = Emulator((), "an emulator 1.0")
        patch.setattr(cpu, "find_emulator", lambda architecture, device: emulator)
        answer = run("export", "--model", checkpoint, "--target", "cpu-int8", "-o", out)
    assert answer.code == 0, answer.err
    assert "parity    proxy: an emulator 1.0 over 4000 events" in answer.out
    bundle = open_bundle(out)
    assert bundle.parity["status"] == "proxy: an emulator 1.0" and bundle.parity["reset"]["identical"] is True
    with pytest.raises(UserError, match="parity: proxy: an emulator"):
        open_session(bundle)


def test_a_device_that_is_none_leaves_nothing_behind(run, refused, checkpoint, tmp_path):
    out = tmp_path / "other.neuro"
    answer = run("export", "--model", checkpoint, "--target", "cpu-fp32@pdp11", "-o", out)
    refused(answer, "device 'pdp11' is not built", "jetson-orin")
    assert not list(tmp_path.glob("*.neuro"))
