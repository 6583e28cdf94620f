"""The causal Event2Vec as graphs: parity over a whole stream in onnxruntime and in compiled C."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from models.checkpoint import Checkpoint, save_checkpoint
from models.event2vec.causal import CausalConfig, CausalEvent2Vec
from networks import scattered
from neurocompile.capture import capture
from neurocompile.parity import prove
from neurocompile.passes import run_passes
from neurocompile.sequences import shipped_sequence
from runtime.backends.ort import OrtExecutor
from runtime.front_ends import TokenDt
from runtime.session import ScheduledSession

FRONT_END = TokenDt("linear", 34, 34, "previous", 2312)
ATTENTIONS = ["gated_linear", "forgetting_causal"]


def make(attention: str, place: str = "perceptron") -> CausalEvent2Vec:
    config = CausalConfig(
        polarities=2, height=34, width=34, d_model=16, d_feedforward=24, nheads=4, n_layers=2, num_classes=3,
        attention=attention, memory=19, pool_every_layer=1, place=place,
    )  # fmt: skip
    return scattered(lambda: CausalEvent2Vec(config))


@pytest.mark.parametrize("attention", ["gated_linear", pytest.param("forgetting_causal", marks=pytest.mark.slow)])
def test_graphs_are_proved_against_the_network(attention):
    program = make(attention).stream_program(FRONT_END, ("a", "b", "c"))
    captured = capture(program)
    if attention == "gated_linear":
        nodes = {name: [node.op_type for node in captured.graphs[name].graph] for name in ("chunk", "encoder0")}
        assert nodes["chunk"].count("GatedLinearAttention") == 2
        assert "GatedLinearAttention" not in nodes["encoder0"]
    graphs, report = run_passes(captured)
    assert "tabulate" in str(report), "the perceptron on coordinates becomes a table of all tokens"

    def open_session(tick_us: float) -> ScheduledSession:
        return ScheduledSession(graphs.spec, OrtExecutor(graphs.spec, graphs.serialised()), tick_us=tick_us)

    proof = prove(program, open_session, shipped_sequence(801), "fp32")
    assert proof.report["status"] == "proved", proof.report["failure"]
    assert proof.report["offline"]["relative"] <= 1e-9
    assert proof.report["reset"]["identical"]


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_compiled_c_is_proved_over_carried_state(attention, tmp_path):
    if not shutil.which("cc"):
        pytest.skip("this machine has no C compiler")
    model = make(attention, "table")
    path, bundle = tmp_path / "causal.safetensors", tmp_path / "causal.neuro"
    save_checkpoint(path, Checkpoint("event2vec_causal", model, model.config, FRONT_END, ("a", "b", "c")))
    command = [sys.executable, "-m", "neurocompile", "export", "--model", str(path), "--target", "cpu-fp32"]
    done = subprocess.run([*command, "-o", str(bundle)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "proved over 4000 events" in done.stdout
    assert (bundle / "manifest.json").exists()
