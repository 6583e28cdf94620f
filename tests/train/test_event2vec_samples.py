"""Samples without a scale of time or without events that count: what is trained on, skipped or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from models.event2vec import Event2Vec, Event2VecConfig
from runtime.errors import UserError
from train.event2vec.batches import Drawing, SampleBatches
from train.event2vec.classifier import Event2VecClassifier
from train.event2vec.files import read
from train.event2vec.points import Points
from train.event2vec.transfer import load_weights
from train.event2vec.transforms import policy
from train.messages import from_worker

NETWORK = Event2VecConfig(
    polarities=2, height=12, width=20, d_model=8, d_feedforward=8, nheads=2, n_layers=2, num_classes=3,
    pool_every_layer=1,
)  # fmt: skip


class Made:
    """Recordings whose times are given."""

    def __init__(self, *times):
        rng = np.random.default_rng(0)
        self.points = [
            Points(np.asarray(t), rng.integers(0, 20, len(t)), rng.integers(0, 12, len(t)), rng.integers(0, 2, len(t)))
            for t in times
        ]
        self.labels = np.arange(len(times)) % 3
        self.names = [f"{number}.npy" for number in range(len(times))]

    def __len__(self):
        return len(self.points)

    def __getitem__(self, row):
        return self.points[row]


def batches(source, training=True, transforms=None, window=8, sampler="random_sample"):
    made = SampleBatches(source, Drawing(window, sampler), (20, 12), 3, None, transforms, training)
    made.multiple = NETWORK.total_downsampling
    return made


def test_samples_whose_events_were_all_removed_train_the_bias():
    batch = batches(Made(range(30), range(7)), transforms=policy("RandomDrop-1")).__getitems__([0, 1])
    assert not batch.mask.any()
    assert batch.whole
    torch.manual_seed(0)
    learner = Event2VecClassifier(NETWORK)
    assert torch.equal(learner(batch), learner.model.heads.bias.expand(2, 3))
    learner.loss(learner(batch), batch).backward()
    grads = {name: parameter.grad for name, parameter in learner.model.named_parameters()}
    assert grads["heads.bias"].abs().max() > 0
    assert not any(grad.isnan().any() or grad.any() for name, grad in grads.items() if name != "heads.bias")


@pytest.mark.parametrize("times", [[5] * 30, [5], []])
@pytest.mark.parametrize("training", [True, False])
def test_recordings_without_duration_are_named(times, training):
    made = batches(Made(range(30), times), training)
    with pytest.raises(UserError, match=r"recording 1\.npy: all \d+ events of its sample have the same time"):
        made.__getitems__([0, 1])
    made.scaled = False
    assert len(made.__getitems__([0, 1]).rows) == 2


def test_an_unlucky_draw_costs_a_batch_in_training_and_is_named_elsewhere():
    source = Made([0] * 40 + [1], range(41))
    training = batches(source, sampler="run").__getitems__([0, 1])
    assert not training.whole
    with pytest.raises(UserError, match=r"0\.npy: all 8 events of its sample"):
        batches(source, False, sampler="run").__getitems__([0, 1])


def test_refusals_from_worker_processes_are_one_sentence():
    loader = DataLoader(batches(Made([1, 1])), num_workers=1, collate_fn=lambda batch: batch)
    with pytest.raises(UserError) as caught:
        list(loader)
    assert "Traceback" in str(caught.value)
    message = str(from_worker(caught.value))
    assert message.startswith("recording 0.npy: ")
    assert "\n" not in message
    assert str(from_worker(UserError("as it was"))) == "as it was"


def test_training_does_not_begin_with_weights_of_a_run_that_diverged(tmp_path):
    state = Event2Vec(NETWORK).state_dict()
    state["tpe.conv.0.weight"][0, 0, 0] = torch.nan
    torch.save({"state_dict": {f"classifier.{name}": value for name, value in state.items()}}, tmp_path / "last.ckpt")
    model = Event2Vec(NETWORK)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r"tpe\.conv\.0\.weight in checkpoint .*last\.ckpt contains NaN"):
        load_weights(model, str(tmp_path / "last.ckpt"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_file_of_another_kind_is_not_called_a_pickle(tmp_path):
    (tmp_path / "a.npz").write_text("nothing")
    with pytest.raises(UserError, match=r"a\.npz: is no recording .*neither \.npy nor \.npz") as caught:
        read(tmp_path / "a.npz")
    assert "pickle" not in str(caught.value)
