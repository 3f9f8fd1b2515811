"""Write the golden samples of a bundle: test samples and outputs with which a device checks a model before using it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from edge_agent.inference.golden_replay import JOINABLE, SINGLE, joining_fault, probability_fault
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


def replay(target: Passed, inputs: np.ndarray, tolerance: float) -> tuple[np.ndarray, str]:
    """Run the target's model on golden samples, with one thread, as on a device.

    Args:
        target: The target.
        inputs: The inputs of the golden samples [N, *shape].
        tolerance: Largest allowed difference between a computed and a stored probability.

    Returns:
        The probabilities [N, classes], which the model computes for one sample at a time, and the value of `batch` in
        the manifest: whether a device may join samples into one run of the model.

    Raises:
        StageError: The model does not run, or its outputs are not probabilities.
    """
    try:
        model = open_model(target.file, dict(target.export["io"]), threads=1)
        outputs = np.concatenate([model.predict(inputs[i : i + 1]) for i in range(len(inputs))])
        if fault := probability_fault(outputs, model.output_dtype):
            raise InferenceError(fault)
        return outputs, SINGLE if joining_fault(model, inputs, tolerance) else JOINABLE
    except InferenceError as error:
        raise StageError(
            str(target.file),
            str(error),
            "a model file that matches its export.json",
            "run the `export` stage again (make repro)",
        ) from None


def write_golden(folder: Path, passed: Mapping[TargetName, Passed], test: Split, params: Params) -> dict[str, Any]:
    """Write the golden samples and each target's outputs for them; return fields of the manifest for each target.

    These fields are `batch` and `golden`.

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
        tolerance = getattr(params.package.golden_tolerance, params.targets[name].precision)
        outputs, batch = replay(own, samples, tolerance)
        np.save(folder / "golden" / f"{name}.npy", outputs, allow_pickle=False)
        described[name] = {
            "batch": batch,
            "golden": {
                "inputs": "golden/inputs.npy",
                "outputs": f"golden/{name}.npy",
                "samples": len(samples),
                "tolerance": tolerance,
            },
        }
    return described
