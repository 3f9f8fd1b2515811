"""The golden samples of a bundle, with which a device checks a model before it serves predictions with the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from edge_agent.inference.model import InferenceError
from edge_agent.inference.runtime import open_model

from stages.core.dataset import Split
from stages.core.errors import StageError
from stages.package.passed import Passed
from stages.params import Params
from stages.params.common import TargetName


def golden_indices(labels: np.ndarray, count: int) -> np.ndarray:
    """Return up to `count` sample indices, sorted. The first sample of each class is chosen, then the second, etc."""
    labels = np.asarray(labels)
    ranks = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks[members] = np.arange(len(members))
    order = np.lexsort((labels, ranks))
    return np.sort(order[:count])


def golden_outputs(target: Passed, inputs: np.ndarray) -> np.ndarray:
    """Return probabilities [N, classes] for `inputs` [N, *shape], predicted one at a time as on a device."""
    try:
        model = open_model(target.file, dict(target.export["io"]), threads=1)
        return np.concatenate([model.predict(inputs[i : i + 1]) for i in range(len(inputs))])
    except InferenceError as error:
        raise StageError(
            str(target.file),
            str(error),
            "a model file that matches its export.json",
            "run the `export` stage again (make repro)",
        ) from None


def write_golden(folder: Path, passed: Mapping[TargetName, Passed], test: Split, params: Params) -> dict[str, Any]:
    """Write the golden samples and each target's outputs for them; return the manifest's entry for each target.

    Args:
        folder: The bundle's folder.
        passed: The targets that passed.
        test: The test split.
        params: Number of golden samples, and tolerances.
    """
    samples = test.samples(golden_indices(test.y, params.package.golden_samples))
    (folder / "golden").mkdir()
    np.save(folder / "golden" / "inputs.npy", samples, allow_pickle=False)
    described: dict[str, Any] = {}
    for name, own in passed.items():
        np.save(folder / "golden" / f"{name}.npy", golden_outputs(own, samples), allow_pickle=False)
        described[name] = {
            "inputs": "golden/inputs.npy",
            "outputs": f"golden/{name}.npy",
            "samples": len(samples),
            "tolerance": getattr(params.package.golden_tolerance, params.targets[name].precision),
        }
    return described
