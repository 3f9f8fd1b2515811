"""Training with a class that has no validation sample: the epochs are compared over the same classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch

from stages import networks
from stages.core.dataset import Split
from stages.train import batches, fabric, loop
from stages.train.objective import cross_entropy
from stages.train.schedule import best_epoch
from stages.train.scores import all_logits, evaluate
from tests.support.stages.training import train_params, write_prepared

pytestmark = pytest.mark.slow

PRESENT = [str(digit) for digit in range(10) if digit != 2]


class Cpu:
    device = "cpu"


@pytest.fixture
def digits(tmp_path: Path) -> batches.Data:
    """Return digits whose validation split has no 2."""
    prepared = write_prepared(tmp_path, "image", (300, 100, 100))
    own = Split.open(prepared, "validation")
    kept = np.flatnonzero(np.asarray(own.y) != 2)
    arrays = {"x": own.samples(kept), "y": np.asarray(own.y)[kept], "group": np.asarray(own.group)[kept]}
    for name, values in arrays.items():
        np.save(prepared / "validation" / f"{name}.npy", values)
    return batches.Data.open(prepared)


def test_the_mean_over_all_classes_is_undefined_and_the_other_is_that_of_scikit_learn(
    digits: batches.Data,
) -> None:
    cpu: Any = fabric.start_fabric(Cpu())  # type: ignore[arg-type]
    torch.manual_seed(3)
    network = networks.build(digits.spec, train_params())

    scores = evaluate(cpu, network, digits.validation, 64)

    y, predicted = np.asarray(digits.validation.y), all_logits(network, digits.validation, 64).argmax(axis=1)
    assert 2 in predicted  # a prediction of the absent class is a mistake of the actual class only
    assert scores.f1_macro is None
    assert scores.partial is not None
    assert (scores.partial.classes, scores.partial.absent) == (PRESENT, ["2"])
    expected = sklearn.metrics.f1_score(
        y, predicted, labels=[int(name) for name in PRESENT], average="macro", zero_division=0
    )
    assert scores.partial.f1_macro == pytest.approx(expected)
    assert f"({expected:.4f} over 9 of 10 classes: 0, 1, " in scores.describe_f1()


def test_the_best_epoch_is_the_best_over_the_classes_that_have_samples(digits: batches.Data, tmp_path: Path) -> None:
    cpu: Any = fabric.start_fabric(Cpu())  # type: ignore[arg-type]
    params = train_params(epochs=4, metric="f1_macro")
    torch.manual_seed(1)
    network = networks.build(digits.spec, params)
    objective = cross_entropy(digits, params, cpu.device)

    history = loop.train_network(
        cpu, network, digits, params, objective, seed=1, checkpoint=tmp_path / "last.pt", on_epoch=lambda _: None
    )

    assert {epoch.validation_f1_macro for epoch in history} == {None}
    measured = [epoch.validation_f1_partial for epoch in history]
    assert measured[best_epoch(history, "f1_macro")] == max(filter(None, measured))
    kept = evaluate(cpu, network, digits.validation, 64).partial
    assert kept is not None and kept.f1_macro == max(filter(None, measured))
