"""Check a model with golden samples: are its outputs probabilities, and may samples be joined into one run?

The service joins samples of different requests into one run of the model, because this is faster. The result of a
sample must not depend on the other samples of its run. But for some files it does: for example, if a file computes one
scale for all activations of a run (dynamic quantization in ONNX Runtime), or normalises with the statistics of the run.
Such a file must compute one sample at a time. The stage `package`, the self-test and the service use these functions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edge_agent.inference.model import InferenceError, Model

JOINABLE, SINGLE = "joinable", "single"
JOINED = 16  # samples in the largest run; also the default of `serve.batch` on a device
# The neighbour of the golden samples is this many times larger than the largest golden sample.
NEIGHBOUR_FACTOR = 200.0
# Largest deviation of a probability from the range 0 to 1, and of a sum of probabilities from 1. Integer outputs are
# rounded to steps of 1/256 or less, so their sum can also deviate by half a step for each class.
DEVIATION = 0.005
INTEGER_STEP = 1 / 256
# An input value is extreme if it is this many times larger than the largest value in the golden samples.
EXTREME_FACTOR = 1000


def joining_fault(model: Model, inputs: np.ndarray, tolerance: float, joined: int = JOINED) -> str | None:
    """Return the reason why samples must not be joined into one run of a model, or None if they may be joined.

    The golden samples are computed alone, joined, and joined with a sample that is 200 times larger. They may be joined
    if no probability changes by more than half of `tolerance`. A predicted class can then change only if the
    probabilities of the two best classes differ by less than `tolerance`.

    Args:
        model: The opened model. Its attribute `batch` has the value from the model file.
        inputs: The golden samples, float32 [N, *shape], N >= 1.
        tolerance: Largest allowed difference between a computed and a stored probability.
        joined: Number of samples in the largest run. If it is larger than N, golden samples occur several times.
    """
    if model.batch is not None:
        return f"the file computes {model.batch} sample{'s' if model.batch > 1 else ''} in each run"
    rows = np.arange(max(joined, 2)) % len(inputs)
    run, limit = "alone", tolerance / 2
    try:
        alone = np.concatenate([model.predict_in_one_run(inputs[i : i + 1]) for i in range(rows.max() + 1)])[rows]
        for run, batch, kept in _runs(inputs[rows]):
            difference = float(np.abs(model.predict_in_one_run(batch)[kept] - alone[kept]).max())
            if not difference <= limit:  # NaN fails
                return f"computed {run}, a probability changes by {difference:.3g}, expected at most {limit:g}"
    except InferenceError as error:
        return f"computed {run}: {error}"
    return None


def _runs(samples: np.ndarray) -> Iterator[tuple[str, np.ndarray, slice]]:
    """Yield runs of joined samples: a description, the samples, and the range of the samples that are golden samples.

    Each golden sample is in the same row as in `samples`.
    """
    count = len(samples)
    yield "with another sample", samples[:2], slice(0, 2)
    yield f"with {count - 1} other samples", samples, slice(0, count)
    largest = samples[np.abs(samples).reshape(count, -1).max(axis=1).argmax()]
    with np.errstate(over="ignore"):
        neighbour = np.nan_to_num(largest * np.float32(NEIGHBOUR_FACTOR))  # infinity becomes the largest number
    first, last = samples.copy(), samples.copy()
    first[0] = last[-1] = neighbour
    description = f"beside a sample that is {NEIGHBOUR_FACTOR:g} times larger"
    yield description, last, slice(0, count - 1)
    yield description, first, slice(1, count)


def probability_fault(probabilities: np.ndarray, output_dtype: str) -> str | None:
    """Return what shows that the outputs of a model are not probabilities, or None if they can be probabilities.

    Args:
        probabilities: The outputs of a model whose manifest says that they are probabilities, [N, classes].
        output_dtype: Data type of the output in the model file, such as "float32" or "int8".
    """
    low, high = float(probabilities.min()), float(probabilities.max())
    if not (low >= -DEVIATION and high <= 1 + DEVIATION):
        return f"outputs from {low:.3g} to {high:.3g}, but probabilities are from 0 to 1"
    sums = probabilities.sum(axis=1)
    worst = float(sums[np.abs(sums - 1).argmax()])
    rounding = 0.0 if output_dtype.startswith("float") else INTEGER_STEP / 2 * probabilities.shape[1]
    if not abs(worst - 1) <= DEVIATION + rounding:
        return f"outputs of one sample whose sum is {worst:.3g}, but probabilities have the sum 1"
    return None


def extreme_value(x: np.ndarray, golden_inputs: np.ndarray) -> str | None:
    """Return a description of the largest value in `x` if this value is far outside the range of the golden samples.

    Return None if the largest value is not far outside this range.
    """
    largest, usual = (float(np.abs(values).max()) for values in (x, golden_inputs))
    description = f"found a value of {largest:.3g}, expected at most about {usual:.3g}"
    return description if largest > EXTREME_FACTOR * usual else None
