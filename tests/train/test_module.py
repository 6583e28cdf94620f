"""The Lightning module and what it is made of: learning rates, loss, skipping, the average, the initial table."""

from __future__ import annotations

import math

import pytest
import pytorch_lightning as pl
import torch

from models.event_ssm import EventSSMConfig
from runtime.errors import UserError
from runtime.front_ends.token_dt import TokenDt
from train.data.batch import Batch
from train.data.nmnist import NMNIST
from train.ema import WeightAverage
from train.embedding_init import fourier
from train.module import EventClassifier, Optimiser

TINY = EventSSMConfig(2312, 10, 8, 8, 4, 1, 1, pooling_stride=8, pooling_mode="avgpool")


def trainer(tmp_path, *callbacks: pl.Callback, **options) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=tmp_path, callbacks=list(callbacks), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", **options,
    )  # fmt: skip


def data(root, **options) -> NMNIST:
    return NMNIST(root=str(root), batch_size=10, pad_unit=64, **options)


class Rates(pl.Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def on_train_batch_start(self, trainer, *_) -> None:
        groups = trainer.optimizers[0].param_groups
        self.seen.append((groups[0]["lr"], groups[1]["lr"]))


def test_learning_rates_scale_with_batch_and_accumulation_and_follow_the_schedule(made_up, tmp_path):
    rates = Rates()
    module = EventClassifier(TINY, Optimiser(ssm_base_lr=1e-5, lr_factor=6, warmup_epochs=1))
    loop = trainer(tmp_path, rates, max_epochs=4, accumulate_grad_batches=2)
    loop.fit(module, data(made_up["nmnist"], validation_fraction=0))
    peak = 1e-5 * 10 * 2
    # Four micro-batches, so two updates an epoch; eight in all, two of them warm-up.
    factors = [0, 0.5, *(0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6))]
    for (ssm, regular), factor in zip(rates.seen[::2], factors, strict=True):
        assert ssm == pytest.approx(peak * factor, abs=1e-12)
        assert regular == pytest.approx(6 * peak * factor, abs=1e-12)


def test_a_batch_with_an_empty_recording_is_skipped():
    module = EventClassifier(TINY)
    batch = Batch(torch.zeros(2, 64).long(), torch.ones(2, 64), torch.tensor([0, 40]), torch.eye(10)[:2])
    assert module.training_step(batch, 0) is None
    assert module._skipped == 1


def test_the_loss_takes_soft_targets():
    module = EventClassifier(TINY)
    module._log = lambda *_: None
    batch = Batch(torch.arange(64)[None], torch.ones(1, 64), torch.tensor([40]), torch.full((1, 10), 0.1))
    logits = module(batch)
    expected = -(torch.log_softmax(logits, 1) * 0.1).sum()
    torch.testing.assert_close(module.training_step(batch, 0), expected)


def test_the_average_follows_its_formula(made_up, tmp_path):
    seen: list[torch.Tensor] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_) -> None:
            seen.append(module.model.decoder.weight.detach().clone())

    average = WeightAverage(0.5)
    module = EventClassifier(TINY, Optimiser(warmup_epochs=0))
    first = module.model.decoder.weight.detach().clone()
    trainer(tmp_path, Watch(), average, max_epochs=1, accumulate_grad_batches=2).fit(
        module, data(made_up["nmnist"], validation_fraction=0)
    )
    expected = first
    for updates, weights in enumerate((seen[1], seen[3]), start=1):
        share = min(0.5, (1 + updates) / (10 + updates))
        expected = share * expected + (1 - share) * weights
    torch.testing.assert_close(average.average["model.decoder.weight"], expected)
    assert average.updates == 2
    torch.testing.assert_close(module.model.decoder.weight, seen[-1])


def test_validation_sees_the_average_and_training_its_own_weights(made_up, tmp_path):
    average = WeightAverage(0.9)
    validated: list[torch.Tensor] = []

    class Watch(pl.Callback):
        def on_validation_batch_end(self, trainer, module, *_) -> None:
            validated.append(module.model.decoder.weight.detach().clone())

    module = EventClassifier(TINY, Optimiser(warmup_epochs=0))
    loop = trainer(tmp_path, average, Watch(), max_epochs=1, num_sanity_val_steps=0)
    loop.fit(module, data(made_up["nmnist"], validation_fraction=0.25))
    torch.testing.assert_close(validated[-1], average.average["model.decoder.weight"])
    assert not torch.equal(module.model.decoder.weight, validated[-1])


def test_fourier_rows_are_alike_near_and_unlike_far():
    torch.manual_seed(0)
    front_end = TokenDt("linear", 34, 34, "previous", 2312)
    table = fourier(front_end, 4096, 4.0)
    assert table.shape == (2312, 4096)
    rows = torch.nn.functional.normalize(table, dim=1)

    def alike(x1: int, y1: int, x2: int, y2: int, p2: int = 0) -> float:
        return float(rows[x1 + 34 * y1] @ rows[x2 + 34 * y2 + 1156 * p2])

    for distance in (0, 2, 4, 8):
        expected = math.exp(-(distance**2) / 32)
        assert alike(10, 10, 10 + distance, 10) == pytest.approx(expected, abs=0.06)
        assert alike(10, 10, 10, 10 + distance) == pytest.approx(expected, abs=0.06)
    assert alike(10, 10, 10, 10, p2=1) == pytest.approx(0, abs=0.06)
    assert float(table.norm(dim=1).mean()) == pytest.approx(1, abs=0.05)


def test_fourier_refuses_tokens_that_are_no_place():
    with pytest.raises(UserError, match="linear"):
        fourier(TokenDt("product", 34, 34, "next", 2312), 8, 4.0)
