"""Test the training loop: schedules, early stopping, the best epoch, scores, resuming."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch

from stages import networks
from stages.core.errors import StageError
from stages.params.train import Train
from stages.train import batches as train_batches
from stages.train import fabric as train_fabric
from stages.train import loop, schedule
from stages.train.objective import class_weights, cross_entropy
from stages.train.scores import all_logits, evaluate
from tests.support.stages.training import train_params, write_prepared

pytestmark = pytest.mark.slow


class Cpu:
    device = "cpu"


@pytest.fixture(scope="module")
def fabric() -> Any:
    fabric = train_fabric.start_fabric(Cpu())  # type: ignore[arg-type]
    torch.set_num_threads(1)  # more threads would busy-wait: torch is imported already
    return fabric


@pytest.fixture
def digits(tmp_path: Path) -> train_batches.Data:
    return train_batches.Data.open(write_prepared(tmp_path, "image", (300, 100, 100)))


def epochs_with(*metric: float) -> list[schedule.Epoch]:
    return [schedule.Epoch(i, 1.0, 1.0, value, value, 0.1) for i, value in enumerate(metric)]


def train_in(
    fabric: Any, data: train_batches.Data, params: Train, folder: Path, seed: int = 1
) -> tuple[Any, list[schedule.Epoch]]:
    torch.manual_seed(seed)
    network = networks.build(data.spec, params)
    objective = cross_entropy(data, params, fabric.device)
    checkpoint = folder / "last.pt"
    history = loop.train_network(
        fabric, network, data, params, objective, seed=seed, checkpoint=checkpoint, on_epoch=lambda _: None
    )
    return network, history


def params_with_schedule(name: str, warmup: int = 0, epochs: int = 20) -> Train:
    scheduler = {"name": name, "warmup_epochs": warmup, "step_epochs": 3, "factor": 0.5}
    return train_params(epochs=epochs, scheduler=scheduler, optimiser={"learning_rate": 0.1})


def test_the_learning_rate_warms_up_linearly() -> None:
    params = params_with_schedule("none", warmup=4)
    assert [schedule.learning_rate(params, at, []) for at in (1, 2, 4, 9)] == pytest.approx([0.025, 0.05, 0.1, 0.1])


def test_the_cosine_schedule_agrees_with_torch() -> None:
    params = params_with_schedule("cosine")
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=20)
    for epoch in range(20):
        assert schedule.learning_rate(params, epoch, epochs_with(*[0.5] * epoch)) == pytest.approx(
            theirs.get_last_lr()[0]
        )
        optimiser.step()
        theirs.step()


def test_the_step_schedule_lowers_the_rate_every_three_epochs() -> None:
    params = params_with_schedule("step")
    rates = [schedule.learning_rate(params, epoch + 0.5, epochs_with(*[0.5] * epoch)) for epoch in range(8)]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025])


def test_the_plateau_schedule_lowers_the_rate_after_epochs_without_improvement() -> None:
    params = params_with_schedule("plateau")
    improving = epochs_with(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    assert schedule.learning_rate(params, 6, improving) == pytest.approx(0.1)
    stuck = epochs_with(0.5, 0.4, 0.4, 0.4)
    assert schedule.learning_rate(params, 4, stuck) == pytest.approx(0.05)
    assert schedule.learning_rate(params, 7, epochs_with(0.5, *[0.4] * 6)) == pytest.approx(0.025)
    assert schedule.learning_rate(params, 7, epochs_with(0.5, 0.4, 0.4, 0.6, 0.4, 0.4)) == pytest.approx(0.1)


def test_the_lower_loss_breaks_ties_between_equal_metrics() -> None:
    history = [schedule.Epoch(i, 1.0, loss, 0.9, 0.9, 0.1) for i, loss in enumerate([0.5, 0.3, 0.4])]
    assert schedule.best_epoch(history, "accuracy") == 1


def test_training_is_over_after_patience_epochs_without_a_new_best() -> None:
    params = train_params(early_stopping={"patience": 2})
    assert not schedule.is_over([], params)
    assert not schedule.is_over(epochs_with(0.5, 0.6, 0.5), params)
    assert schedule.is_over(epochs_with(0.5, 0.6, 0.5, 0.5), params)


def test_early_stopping_ends_a_run(fabric: Any, digits: train_batches.Data, tmp_path: Path) -> None:
    # With a learning rate near zero, no epoch is better than the first.
    params = train_params(epochs=50, early_stopping={"patience": 2}, optimiser={"learning_rate": 1e-12})
    _, history = train_in(fabric, digits, params, tmp_path)
    assert len(history) < 50
    assert len(history) - 1 - schedule.best_epoch(history, "accuracy") == 2


def test_batches_contain_every_sample_once_and_differ_by_epoch() -> None:
    batches = train_batches.split_batches(65, 32, seed=1, epoch=0)
    assert sorted(np.concatenate(batches)) == list(range(65))
    assert [len(batch) for batch in batches] == [22, 22, 21]  # not 32, 32, 1
    repeated, other = train_batches.split_batches(65, 32, 1, 0), train_batches.split_batches(65, 32, 1, 1)
    assert np.array_equal(np.concatenate(batches), np.concatenate(repeated))
    assert not np.array_equal(np.concatenate(batches), np.concatenate(other))


def test_preprocessing_is_fitted_to_a_limited_number_of_samples(digits: train_batches.Data) -> None:
    all_samples = torch.cat(list(train_batches.training_batches(digits, 64)))
    assert torch.equal(all_samples, torch.from_numpy(digits.train.samples(np.arange(300))))
    few = torch.cat(list(train_batches.training_batches(digits, 7, max_values=64 * 11)))
    assert torch.equal(few, all_samples[np.linspace(0, 299, 11).round()])


@pytest.mark.parametrize("batch_size", [7, 100])
def test_scores_agree_with_scikit_learn(fabric: Any, digits: train_batches.Data, batch_size: int) -> None:
    torch.manual_seed(3)
    network = networks.build(digits.spec, train_params())
    scores = evaluate(fabric, network, digits.test, batch_size)
    logits = all_logits(network, digits.test, batch_size)
    y, predicted = np.asarray(digits.test.y), logits.argmax(axis=1)
    assert scores.accuracy == pytest.approx(sklearn.metrics.accuracy_score(y, predicted))
    assert scores.f1_macro == pytest.approx(sklearn.metrics.f1_score(y, predicted, average="macro"))
    probabilities = torch.softmax(torch.from_numpy(logits).double(), 1).numpy()
    assert scores.loss == pytest.approx(sklearn.metrics.log_loss(y, probabilities, labels=range(10)), rel=1e-4)


def test_balanced_weights_agree_with_scikit_learn_and_absent_classes_have_weight_zero() -> None:
    labels = np.array([0] * 6 + [2] * 2)
    params = train_params(class_weights="balanced")
    assert class_weights(labels, 3, params).tolist() == pytest.approx([8 / 12, 0.0, 8 / 4])  # type: ignore[union-attr]
    assert class_weights(labels, 3, train_params()) is None


def test_the_objective_smooths_labels(digits: train_batches.Data) -> None:
    logits, y = torch.tensor([[4.0, 0.0] + [0.0] * 8, [0.0] * 10]), torch.tensor([0, 1])
    plain, smooth = (
        cross_entropy(digits, train_params(label_smoothing=value), torch.device("cpu"))(logits, logits, y)
        for value in (0.0, 0.2)
    )
    log_p = torch.log_softmax(logits, 1)
    assert plain == pytest.approx(float(-(log_p[0, 0] + log_p[1, 1]) / 2))
    assert smooth == pytest.approx(float(0.8 * plain - 0.2 * log_p.mean()), rel=1e-5)


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("scheduler", ["cosine", "step", "plateau", "none"])
def test_every_optimiser_learns_under_every_schedule(
    optimiser: str, scheduler: str, fabric: Any, digits: train_batches.Data, tmp_path: Path
) -> None:
    rate = 0.05 if optimiser == "sgd" else 0.01
    params = train_params(
        optimiser={"name": optimiser, "learning_rate": rate}, scheduler={"name": scheduler, "warmup_epochs": 1}
    )
    network, history = train_in(fabric, digits, params, tmp_path)
    assert evaluate(fabric, network, digits.test, 64).accuracy > 0.6  # chance is 0.1
    assert history[0].train_loss > history[-1].train_loss


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_the_best_epoch_is_kept_instead_of_the_last(
    metric: str, fabric: Any, digits: train_batches.Data, tmp_path: Path
) -> None:
    # The learning rate grows until training diverges, so the last epoch is not the best.
    params = train_params(epochs=6, metric=metric, optimiser={"name": "sgd", "learning_rate": 3.0})
    params = params.model_copy(update={"scheduler": params_with_schedule("none", warmup=5).scheduler})
    network, history = train_in(fabric, digits, params, tmp_path)
    best = history[schedule.best_epoch(history, metric)]
    assert best.epoch != history[-1].epoch
    kept = evaluate(fabric, network, digits.validation, 64)
    assert (kept.accuracy, kept.f1_macro) == (best.validation_accuracy, best.validation_f1_macro)
    assert kept.accuracy > history[-1].validation_accuracy


class KilledError(Exception):
    pass


@pytest.mark.parametrize("scheduler", ["cosine", "plateau"])
@pytest.mark.parametrize("network", ["cnn", "rnn"])
def test_a_resumed_run_gives_the_same_bytes_as_an_uninterrupted_one(
    network: str, scheduler: str, fabric: Any, digits: train_batches.Data, tmp_path: Path
) -> None:
    params = train_params(
        network,
        cnn={"dropout": 0.5},
        rnn={"dropout": 0.3, "layers": 2},
        epochs=5,
        scheduler={"name": scheduler, "step_epochs": 1},
        augment={"noise": 0.1, "rotation_deg": 10.0, "scaling": 0.1},
    )
    uninterrupted, history = train_in(fabric, digits, params, tmp_path / "uninterrupted")

    torch.manual_seed(1)
    killed = networks.build(digits.spec, params)
    objective = cross_entropy(digits, params, fabric.device)

    def stop(epoch: schedule.Epoch) -> None:
        if epoch.epoch == 2:
            raise KilledError

    checkpoint = tmp_path / "killed" / "last.pt"
    with pytest.raises(KilledError):
        loop.train_network(fabric, killed, digits, params, objective, seed=1, checkpoint=checkpoint, on_epoch=stop)
    torch.manual_seed(999)  # a resumed process may have another random state
    resumed = networks.build(digits.spec, params)
    reported: list[schedule.Epoch] = []
    resumed_history = loop.train_network(
        fabric, resumed, digits, params, objective, seed=1, checkpoint=checkpoint, on_epoch=reported.append
    )
    assert resumed_history == history == reported
    networks.save(uninterrupted, tmp_path / "a.pt")
    networks.save(resumed, tmp_path / "b.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_the_error_for_a_loss_that_is_not_finite_names_the_learning_rate(
    fabric: Any, digits: train_batches.Data, tmp_path: Path
) -> None:
    params = train_params(optimiser={"name": "sgd", "learning_rate": 1e30}, scheduler={"name": "none"})
    with pytest.raises(StageError, match=r"training loss.*\n?.*learning_rate 1e\+30"):
        train_in(fabric, digits, params, tmp_path)


def test_the_error_names_a_training_sample_that_is_not_finite(fabric: Any, tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, "image", (300, 100, 100))
    x = np.load(prepared / "train" / "x.npy")
    x[123, 0, 4, 4] = math.nan
    np.save(prepared / "train" / "x.npy", x)
    with pytest.raises(StageError, match=r"sample 123.*NaN"):
        train_in(fabric, train_batches.Data.open(prepared), train_params(), tmp_path)


def test_training_data_of_a_single_class_is_refused(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, "series")
    np.save(prepared / "train" / "y.npy", np.zeros(160, dtype=np.int64))
    with pytest.raises(StageError, match="every training sample is of class 'slow'"):
        train_batches.Data.open(prepared)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_empty_split_is_refused(split: str, tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, "series")
    for name in ("y", "group", "starts"):
        path = prepared / split / f"{name}.npy"
        np.save(path, np.load(path)[:0])
    with pytest.raises(StageError, match=rf"{split}: found no samples"):
        train_batches.Data.open(prepared)


def test_missing_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no prepared data"):
        train_batches.Data.open(tmp_path)
