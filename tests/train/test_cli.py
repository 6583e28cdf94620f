"""The commands end to end on made-up recordings: what they write, what resumes, what they refuse."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from models.checkpoint import open_checkpoint
from runtime.errors import UserError
from train.__main__ import main
from train.arguments import SHIPPED, complete, locate

TINY = [
    "--model.network.d_model", "8", "--model.network.d_ssm", "8", "--model.network.ssm_block_size", "4",
    "--model.network.num_layers_per_stage", "1", "--threads", "1",
]  # fmt: skip


def fit(root: Path, output: Path, *more: str) -> int:
    options = ["--data.root", str(root), "--data.batch_size", "10", "--data.validation_fraction", "0.25"]
    options += ["--choose_by", "accuracy"]
    return main(["fit", *TINY, *options, "--trainer.max_epochs", "2", "--output", str(output), *more])


@pytest.fixture(scope="module")
def run(made_up, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("run") / "run"
    assert fit(made_up["nmnist"], output) == 0
    return output


def test_data_that_cannot_be_used_leaves_no_folder(run, tmp_path, capsys):
    output, none = tmp_path / "run", ["--data.root", str(tmp_path / "none")]
    checkpoint = next((run / "checkpoints").iterdir())
    for command in (["fit"], ["validate", "--ckpt_path", str(checkpoint)], ["test", "--ckpt_path", str(checkpoint)]):
        assert main([*command, *TINY, *none, "--output", str(output)]) == 2
        assert "does not exist" in capsys.readouterr().err
        assert not output.exists()


def test_fit_leaves_model_scores_logs_and_configuration(run):
    names = {path.name for path in run.iterdir()}
    assert {"model.safetensors", "metrics.json", "metrics.csv", "config.yaml", "checkpoints"} <= names
    assert any(name.startswith("events.out") for name in names)
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 <= metrics["test/accuracy"] <= 1
    assert metrics["epochs"] == 2
    checkpoint = open_checkpoint(run / "model.safetensors")
    assert checkpoint.labels == tuple("0123456789")
    assert checkpoint.front_end.rule == "linear"
    assert checkpoint.front_end.dt == "previous"
    assert checkpoint.metadata["test/accuracy"] == metrics["test/accuracy"]


def test_the_training_checkpoint_opens_without_trust_and_holds_the_average(run):
    path = next((run / "checkpoints").glob("best-*.ckpt"))
    saved = torch.load(path, map_location="cpu", weights_only=True)
    assert json.loads(saved["neurocompile"])["family"] == "event_ssm"
    assert saved["ema_state_dict"].keys() == saved["state_dict"].keys()
    average, trained = (saved[name]["model.decoder.weight"] for name in ("ema_state_dict", "state_dict"))
    assert not torch.equal(average, trained)
    for file in (path, run / "model.safetensors"):
        assert torch.equal(open_checkpoint(file).model.decoder.weight, average)


def test_the_last_epoch_is_kept_whatever_was_best(made_up, tmp_path):
    more = ("--model.optimiser.ssm_base_lr", "1e-12", "--trainer.max_epochs", "3", "--test_at_end", "false")
    assert fit(made_up["nmnist"], tmp_path, *more) == 0
    epochs = {path.stem: torch.load(path, weights_only=True)["epoch"] for path in (tmp_path / "checkpoints").iterdir()}
    # Nothing is learnt, so no later epoch is strictly better.
    assert epochs == {"best-000": 0, "last": 2}


def test_scores_and_predictions_are_those_of_the_average(run, tmp_path, capsys):
    best = str(next((run / "checkpoints").glob("best-*.ckpt")))
    assert main(["test", "--ckpt_path", best]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    printed = f"test accuracy {100 * metrics['test/accuracy']:.2f} % of 40 samples, loss {metrics['test/loss']:.3f}"
    assert printed in capsys.readouterr().out
    assert main(["validate", "--ckpt_path", best]) == 0
    assert "of 10 samples" in capsys.readouterr().out
    assert main(["predict", "--ckpt_path", best, "--output", str(tmp_path)]) == 0
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert right / 40 == pytest.approx(metrics["test/accuracy"])
    logits = [float(rows[0][f"logit_{digit}"]) for digit in range(10)]
    assert logits.index(max(logits)) == int(rows[0]["predicted"])


def test_the_same_seed_gives_the_same_weights(made_up, run, tmp_path):
    assert fit(made_up["nmnist"], tmp_path / "again") == 0
    first, second = (open_checkpoint(place / "model.safetensors").model for place in (run, tmp_path / "again"))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_resumed_run_goes_on(made_up, tmp_path):
    assert fit(made_up["nmnist"], tmp_path / "half", "--trainer.max_steps", "3", "--test_at_end", "false") == 0
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    half = torch.load(last, weights_only=True)
    assert half["global_step"] == 3
    assert not (tmp_path / "half" / "model.safetensors").exists()
    assert fit(made_up["nmnist"], tmp_path / "rest", "--ckpt_path", str(last)) == 0
    rest = torch.load(tmp_path / "rest" / "checkpoints" / "last.ckpt", weights_only=True)
    assert rest["global_step"] == 6
    updates = [saved["callbacks"]["WeightAverage"]["updates"] for saved in (half, rest)]
    assert updates == [3, 6]


def test_without_validation_the_last_epoch_counts(made_up, tmp_path):
    assert fit(made_up["nmnist"], tmp_path, "--data.validation_fraction", "0") == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["checkpoint"].endswith("last.ckpt")
    assert "validation/accuracy" not in metrics


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fti"], "command 'fti' does not exist"),
        (["fit", "--config", "none.yaml"], "none.yaml does not exist"),
        (["fit", "--data.bacth_size", "3"], "'bacth_size' does not exist"),
        (["fit", "--model.network.d_ssm", "65"], "does not divide d_ssm 65"),
        (["fit", "--data.root", "/nowhere"], "/nowhere does not exist"),
        (["fit", "--model.network.num_classes", "7"], "num_classes is 7, but the data have 10"),
        (["fit", "--data.pad_unit", "100"], "no multiple of the network's 64"),
        (["fit", "--model.embedding_init", "zero"], "'zero' does not exist"),
        (["fit", "--model.optimiser.schedule", "step"], "'step' does not exist"),
        (["fit", "--trainer.precision", "bf16-true"], "use 32-true, bf16-mixed"),
        (["test"], "test needs --ckpt_path"),
        (["test", "--ckpt_path", "nowhere/a.ckpt"], "no config.yaml"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, made_up, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "fit" and "--data.root" not in arguments:
        arguments = [*arguments, "--data.root", str(made_up["nmnist"]), "--data.batch_size", "10"]
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_logger_without_its_package_says_what_to_install(made_up, tmp_path, capsys):
    assert fit(made_up["nmnist"], tmp_path, "--trainer.logger", "WandbLogger") == 2
    assert "pip install 'wandb" in capsys.readouterr().err


def test_configurations_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate("train/configs/shd.yaml") == locate("shd.yaml") == locate("shd") == SHIPPED / "shd.yaml"
    assert locate("slurm/dvs_gesture_ddp").is_file()
    (tmp_path / "shd.yaml").touch()
    assert locate("shd.yaml") == Path("shd.yaml")
    with pytest.raises(UserError, match="nmnist.yaml"):
        locate("other")
    assert complete(["fit"]) == (["fit", "--config", str(SHIPPED / "nmnist.yaml")], "nmnist")
    assert complete(["fit", "--config=ssc"])[1] == "ssc"


def test_every_shipped_configuration_parses():
    code = (
        "from train.arguments import SHIPPED, chosen_model\nfrom train.cli import CLI\n"
        "CLI.instantiate_trainer = CLI._run_subcommand = lambda *_: None\n"
        "for path in SHIPPED.rglob('*.yaml'):\n    arguments = ['fit', '--config', str(path)]\n"
        "    CLI('x', arguments, chosen_model(arguments))\n    print(path.name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(list(SHIPPED.rglob("*.yaml"))) >= 14


def test_usage_needs_no_torch():
    code = "import sys; from train.__main__ import main; main(['--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
