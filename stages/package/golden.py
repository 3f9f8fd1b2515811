"""Write the golden samples of a bundle: test samples and outputs with which a device checks a model before using it."""

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
    """Return the sorted indices of up to `count` samples, about the same number from each class.

    The first sample of each class is chosen, then the second sample of each class, and so on.
    """
    labels = np.asarray(labels)
    ranks = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks[members] = np.arange(len(members))
    order = np.lexsort((labels, ranks))
    return np.sort(order[:count])


def golden_outputs(target: Passed, inputs: np.ndarray) -> np.ndarray:
    """Return the probabilities [N, classes] that the target's model computes for `inputs` [N, *shape].

    The model runs with batch size 1 and one thread, as on a device.
    """
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
        folder: The folder in which the bundle's files are collected.
        passed: The targets that passed the gate.
        test: The test split.
        params: All parameters of the pipeline, which define the number of golden samples and the tolerances.
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
