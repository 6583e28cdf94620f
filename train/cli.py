"""The commands of `python -m train`: Lightning's, plus what is needed to leave something usable behind."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentError
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import LambdaCallback, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from runtime.errors import UserError
from train.arguments import chosen_model
from train.classifier import Classifier, Learner
from train.data.labelled import LabelledData
from train.ema import WeightAverage
from train.messages import behind, from_worker, quieten, sentence
from train.module import EventClassifier
from train.outcome import save_metrics, save_model, save_predictions
from train.progress import EpochLines

PRECISIONS = (None, "32-true", "32", 32, "bf16-mixed", "bf16", "16-mixed", "16", 16)
"""Those that leave the weights float32."""


def run(arguments: list[str], name: str) -> None:
    """Runs one command.

    Args:
        arguments: The completed command line without the program's name.
        name: Of the configuration.

    Raises:
        UserError: If arguments or data cannot be worked with.
    """
    quieten()
    try:
        CLI(name, arguments, chosen_model(arguments))
    except UserError as error:
        raise from_worker(error) from error
    except (ArgumentError, ValueError) as error:
        if (refusal := behind(error)) is not None:
            raise refusal from error
        if isinstance(error, ArgumentError):
            raise UserError(sentence(str(error))) from error
        # Lightning asks for the packages of loggers and plugins only when they are used.
        missing = re.search(r"given class_path '([\w.]+)':\s+Requirement '([^']+)' not met", str(error))
        if missing is None:
            raise
        raise UserError(f"{missing[1]} needs a package that is not installed: pip install '{missing[2]}'") from error


class CLI(LightningCLI):
    """Lightning's command line with a folder per run and an outcome at the end.

    Args:
        name: Of the configuration; names the run's folder.
        arguments: The command line without the program's name.
        any_model: Whether the configuration names the class that trains; otherwise it is `EventClassifier`.
    """

    def __init__(self, name: str, arguments: list[str], any_model: bool = False) -> None:
        self.name = name
        super().__init__(
            Learner if any_model else EventClassifier,
            LabelledData,
            subclass_mode_model=any_model,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={"max_epochs": 100},
            parser_kwargs={"exit_on_error": False, "prog": "python -m train"},
            args=arguments,
            auto_configure_optimizers=False,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses; the warning about arguments given twice does not apply."""
        self.config = parser.parse_args(args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what is neither the trainer's, the model's nor the data's."""
        parser.add_argument(
            "--output", type=str | None, default=None, help="Folder of the run (default: runs/NAME/TIME)."
        )
        parser.add_argument(
            "--ema",
            type=float,
            default=0.0,
            help="Decay of the average of the weights that is evaluated; 0: no average.",
        )
        parser.add_argument(
            "--choose_by",
            type=Literal["accuracy", "loss", "last"],
            default="accuracy",
            help="The epoch that is tested and kept: the best on validation, as published by accuracy, or the last; "
            "with few validation samples the best one is chance.",
        )
        parser.add_argument("--test_at_end", type=bool, default=True, help="Whether fit tests and writes the model.")
        parser.add_argument("--threads", type=int | None, default=None, help="CPU threads (default: all cores).")

    def before_instantiate_classes(self) -> None:
        """Chooses the run's folder and the number of threads."""
        config = self.config[self.subcommand]
        if config.threads:
            torch.set_num_threads(config.threads)
        # What has decayed below 1e-38 counts as 0; processors are many times slower with such numbers.
        torch.set_flush_denormal(True)
        if config.output is None:
            # Processes that Lightning starts for further devices inherit the folder of the first.
            folder = str(Path("runs", self.name, time.strftime("%Y%m%d-%H%M%S")))
            if os.environ.get("LOCAL_RANK", "0") == "0":
                os.environ["NEUROCOMPILE_RUN"] = folder
            config.output = os.environ.get("NEUROCOMPILE_RUN", folder)
        self.output = Path(config.output)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds loggers, checkpoints, the average of the weights and the epoch lines."""
        config = self.config_init[self.subcommand]
        training, given = self.subcommand == "fit", config.trainer.callbacks or []
        given = list(given) if isinstance(given, list) else [given]
        if config.ema or not training:
            # Scores are those of the average, wherever a checkpoint has one.
            given.append(WeightAverage(config.ema))
        if training:
            given += [self._folder(), EpochLines(), LearningRateMonitor()]
            if not any(isinstance(callback, ModelCheckpoint) for callback in given):
                given += self._checkpoints()
        if config.trainer.logger in (None, True):
            loggers = [Log(self.output, name="", version="") for Log in (CSVLogger, TensorBoardLogger)]
            kwargs["logger"] = loggers if training else False
        if config.trainer.default_root_dir is None:
            kwargs["default_root_dir"] = str(self.output)
        if not training and config.trainer.devices == "auto":
            # Several devices would count some recordings twice to keep their batches even.
            kwargs["devices"] = 1
        if config.trainer.enable_progress_bar is None:
            kwargs["enable_progress_bar"] = sys.stdout.isatty()
        if config.trainer.enable_model_summary is None:
            kwargs["enable_model_summary"] = False
        if training and config.trainer.precision not in PRECISIONS:
            raise UserError(
                f"trainer.precision {config.trainer.precision} changes the type of the weights, which checkpoints hold "
                "as float32; use 32-true, bf16-mixed or 16-mixed"
            )
        return super().instantiate_trainer(callbacks=given, **kwargs)

    def _folder(self) -> LambdaCallback:
        """Writes the resolved configuration as soon as the data are open."""

        def begin(trainer: Trainer, module: EventClassifier) -> None:
            if trainer.is_global_zero:
                self.output.mkdir(parents=True, exist_ok=True)
                self._parser("fit").save(self.config.fit, self.output / "config.yaml", skip_none=False, overwrite=True)
                print(f"run: {self.output} ({sum(parameter.numel() for parameter in module.parameters())} parameters)")

        return LambdaCallback(on_fit_start=begin)

    def _checkpoints(self) -> list[ModelCheckpoint]:
        """The best epoch on validation, of equals the first, and the last epoch."""
        folder, by = self.output / "checkpoints", self.config.fit.choose_by
        last = ModelCheckpoint(folder, "last", enable_version_counter=False, save_on_train_epoch_end=True)
        if by == "last" or not self.datamodule.has_validation:
            return [last]
        if by == "accuracy" and not isinstance(self.model, Classifier):
            raise UserError("choose_by accuracy is for networks that name classes; set choose_by to loss or last")
        mode = "max" if by == "accuracy" else "min"
        best = ModelCheckpoint(
            folder, "best-{epoch:03d}", f"validation/{by}", mode=mode, auto_insert_metric_name=False,
            enable_version_counter=False,
        )  # fmt: skip
        return [best, last]

    def before_fit(self) -> None:
        """Opens the data before loggers make their folders, so that a refusal leaves nothing; starts the clock."""
        self._open("fit")
        self.model.begin(self.datamodule)
        self._begin = time.monotonic()

    def _open(self, stage: str) -> None:
        # Sets that are cut once are cut by one process; the trainer lets the others wait for it.
        if self.trainer.is_global_zero:
            self.datamodule.prepare_data()
            self.datamodule.setup(stage)

    def before_validate(self) -> None:
        """See `before_fit`."""
        self._open("validate")
        split = self.datamodule.splits.get("validation")
        if split is not None and not len(split):
            raise UserError(
                "nothing is held back for validation; set data.validation_fraction, or data.validate_on_test true"
            )

    def before_test(self) -> None:
        """See `before_fit`."""
        self._open("test")

    def before_predict(self) -> None:
        """See `before_fit`."""
        self._open("predict")

    def after_fit(self) -> None:
        """Tests with the chosen checkpoint and writes the model and its scores."""
        trainer, seconds = self.trainer, time.monotonic() - self._begin
        latest = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("validation/")
        }
        if trainer.fast_dev_run or not self.config.fit.test_at_end:
            return
        best = trainer.checkpoint_callback.best_model_path
        scores = dict(trainer.test(self.model, self.datamodule, ckpt_path=best, verbose=False)[0])
        if not trainer.is_global_zero:
            return
        path = self.output / "model.safetensors"
        score = trainer.checkpoint_callback.best_model_score
        scores |= latest if score is None else {f"validation/{self.config.fit.choose_by}": float(score)}
        trained = save_model(path, best, **scores, data=self.datamodule.attribution)
        size = sum(parameter.numel() for parameter in trained.model.parameters())
        save_metrics(
            self.output / "metrics.json",
            {**scores, "checkpoint": best, "epochs": trainer.current_epoch, "seconds": seconds, "parameters": size},
        )
        print(f"{self._sentence('test', scores)}, {seconds / 60:.1f} min training")
        print(f"model: {path}")

    def validate(self, **options: Any) -> None:
        """Prints the score of a checkpoint on validation."""
        self._print("validation", self.trainer.validate(**{**options, "verbose": False}))

    def test(self, **options: Any) -> None:
        """Prints the score of a checkpoint on test."""
        self._print("test", self.trainer.test(**{**options, "verbose": False}))

    def predict(self, **options: Any) -> None:
        """Predicts the test split and writes one row per recording."""
        options.pop("return_predictions", None)
        logits = torch.cat(self.trainer.predict(**options))
        source = self.datamodule.splits["test"].source
        path = self.output / "predictions.csv"
        save_predictions(path, source.names, source.labels.tolist(), self.datamodule.labels, logits.float())
        print(f"{len(logits)} predictions: {path}")

    def _print(self, split: str, scores: list[Mapping[str, float]]) -> None:
        print(f"{self._sentence(split, scores[0])}, loss {scores[0][f'{split}/loss']:.3f}")

    def _sentence(self, split: str, scores: Mapping[str, float]) -> str:
        return f"{split} {self.model.outcome(split, scores)} of {len(self.datamodule.splits[split])} samples"
