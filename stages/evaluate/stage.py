"""Measure the exported file on the test split, with the same runtime that devices use.

Neither torch nor TensorFlow is loaded, so the measured code is the code that a device runs. Latency and memory are
measured on the machine that runs this stage. All other numbers are the same in every run.
"""

from __future__ import annotations

import csv
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from edge_agent.inference.model import InferenceError, Model, ModelError
from edge_agent.inference.runtime import open_model

from stages.core import command
from stages.core.dataset import SampleSpec, Split
from stages.core.errors import StageError
from stages.core.files import new_directory, rerun_hint, write_json, write_text
from stages.evaluate.latency import measure_latency, measure_memory
from stages.evaluate.recompute import COLUMNS
from stages.export.artifact import PREPARED, find_target, read_export, read_reference
from stages.metrics import classification
from stages.metrics.bootstrap import Clusters
from stages.metrics.classification import Estimate
from stages.metrics.confusion import confusion_matrix, name_classes, supported
from stages.params import load
from stages.params.evaluate import Evaluate

REPORTS = Path("reports/evaluate")
BATCH = 256
CONFIDENCE_BINS = 10
PACKAGES = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}


def quality(
    probabilities: np.ndarray,
    actual: np.ndarray,
    reference: np.ndarray,
    groups: np.ndarray,
    classes: list[str],
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    """Compute the quality metrics of an exported file: the part of the evaluation report that is the same in every run.

    Args:
        probabilities: The probabilities that the exported file computes [N, classes].
        actual: Index of each sample's actual class [N].
        reference: Logits of the compressed torch model [N, classes].
        groups: Name of each sample's group [N].
        classes: Names of the classes.
        confidence: Confidence level of the intervals, 0 to 1.
        seed: Seed of the bootstrap's random draws.
    """
    predicted = probabilities.argmax(axis=1)
    certain = probabilities[np.arange(len(actual)), predicted].astype(np.float64)
    correct = predicted == actual
    counts = confusion_matrix(actual, predicted, len(classes))
    clusters = Clusters(groups, seed, counts.size)
    means, each = classification.estimates(actual, predicted, len(classes), confidence, seed, clusters)
    measured = {name: asdict(estimate) for name, estimate in means.items()}
    absent = [classes[k] for k in np.flatnonzero(~supported(counts))]
    edges = np.round(np.linspace(0, 1, CONFIDENCE_BINS + 1)[1:-1], 12)
    return {
        "classes": classes,
        "samples": len(actual),
        "confidence": confidence,
        "intervals": clusters.describe(),
        "accuracy": asdict(classification.hit_share(correct, confidence, clusters)),
        **(dict.fromkeys(measured) if absent else measured),
        "partial": {
            "classes": [name for name in classes if name not in absent],
            "absent": absent,
            **measured,
        }
        if absent
        else None,
        "calibration_error": asdict(classification.calibration_estimate(certain, correct, confidence, seed, clusters)),
        "agreement": asdict(classification.hit_share(predicted == reference.argmax(axis=1), confidence, clusters)),
        "per_class": {name: _class_report(each, k, counts) for k, name in enumerate(classes)},
        "by_group": classification.by_group(groups, correct, confidence),
        "confusion": counts.tolist(),  # in the order of `classes`
        "prediction_ratios": classification.shares(predicted, classes),
        "confidence_bins": {
            "edges": edges.tolist(),
            "ratios": (np.bincount(np.digitize(certain, edges), minlength=CONFIDENCE_BINS) / len(actual)).tolist(),
        },
    }


def _class_report(each: Mapping[str, list[Estimate | None]], k: int, confusion: np.ndarray) -> dict[str, Any]:
    report: dict[str, Any] = {"support": int(confusion[k].sum())}
    for name, values in each.items():
        own = values[k]
        report[name] = own and own.value
        report[f"{name}_interval"] = own and [own.low, own.high]
    return report


def predict(model: Model, split: Split) -> np.ndarray:
    """Return the probabilities [N, classes] that the model computes for a whole split. Raises InferenceError.

    The model computes one sample in each run. A device joins samples only if this does not change their results.
    """
    model.batch = 1
    starts = range(0, len(split), BATCH)
    return np.concatenate([model.predict(split.samples(slice(start, start + BATCH))) for start in starts])


def costs(model: Model, file: Path, io: Mapping[str, Any], samples: np.ndarray, params: Evaluate) -> dict[str, Any]:
    """Measure latency and memory, and return them with a description of the machine, for the evaluation report.

    Args:
        model: The opened model file.
        file: The path of the model file.
        io: The description of the model file's inputs and outputs.
        samples: Samples [N, *shape] in raw units.
        params: The numbers of predictions and threads, and the confidence level.
    """
    latency = measure_latency(model, samples, params.warmup, params.repeats, params.confidence)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "sample.npy", samples[:1])
        memory = measure_memory(file, io, Path(folder) / "sample.npy", params.threads, params.confidence)
    package = PACKAGES[io["runtime"]]
    return {
        "latency_ms": {name: asdict(estimate) for name, estimate in latency.items()},
        "memory_mb": asdict(memory),
        "machine": {
            "cpu": processor(),
            "system": f"{platform.system()} {platform.machine()}",
            "runtime": f"{package} {version(package)}",
            "threads": params.threads,
        },
    }


def processor() -> str:
    """Return the name of this machine's processor, as the operating system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(names, platform.processor() or platform.machine())


def predictions(
    groups: np.ndarray, actual: np.ndarray, probabilities: np.ndarray, reference: np.ndarray, classes: list[str]
) -> str:
    """Return the content of predictions.csv, with one row per test sample.

    The gate computes the numbers of the evaluation report again from this file.

    Args:
        groups: Name of each sample's group [N].
        actual: Index of each sample's actual class [N].
        probabilities: The probabilities that the exported file computes [N, classes]. Only the highest probability of
            each sample is written, with nine digits, which identify a float32 exactly.
        reference: Logits of the compressed torch model [N, classes].
        classes: Names of the classes.
    """
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for group, label, row, logits in zip(groups, actual, probabilities, reference, strict=True):
        writer.writerow([group, classes[label], classes[row.argmax()], f"{row.max():.9g}", classes[logits.argmax()]])
    return stream.getvalue()


def main() -> None:
    parser = command.parser("evaluate", __doc__)
    parser.add_argument("--target", required=True, help="a key of `targets` in params.yaml")
    target = parser.parse_args().target
    params = load()
    find_target(params.targets, target)

    classes = SampleSpec.read(PREPARED).classes
    test = Split.open(PREPARED, "test")
    if not len(test):
        raise StageError(
            str(PREPARED / "test"),
            "found no samples",
            "at least one sample",
            "change prepare.split, so that the test split has samples",
        )
    actual, groups = np.asarray(test.y), np.asarray(test.group)
    reference = read_reference("test", len(test))
    file, exported = read_export(target)
    try:
        model = open_model(file, exported["io"], params.evaluate.threads)
        if model.classes != len(classes):
            raise ModelError(
                f"{file}: its description has {model.classes} outputs, expected one for each class, {classes}"
            )
        probabilities = predict(model, test)
        some = test.samples(slice(0, BATCH))
        measured = costs(model, file, exported["io"], some, params.evaluate)
    except InferenceError as error:
        if not np.isfinite(test.x).all():
            raise StageError(str(PREPARED / "test"), str(error), "finite samples", rerun_hint("prepare")) from None
        raise StageError(
            str(file), str(error), "finite outputs", f"run python -m stages.export --target {target}"
        ) from None
    report = {
        "target": target,
        "model_sha256": exported["sha256"],
        "size_bytes": exported["size_bytes"],
        **quality(probabilities, actual, reference, groups, classes, params.evaluate.confidence, params.seed),
        **measured,
    }
    with new_directory(REPORTS / target) as folder:
        write_json(folder / "metrics.json", report)
        write_text(folder / "predictions.csv", predictions(groups, actual, probabilities, reference, classes))
    print(summary(report))


def summary(report: Mapping[str, Any]) -> str:
    """Return the line that the stage prints: the main numbers of the evaluation report."""
    accuracy, latency, partial = report["accuracy"], report["latency_ms"]["p50"], report["partial"]
    f1_macro = (
        f"undefined, because no test sample is of class {', '.join(partial['absent'])} "
        f"({partial['f1_macro']['value']:.4f} over {name_classes(partial['classes'], partial['absent'])})"
        if partial
        else f"{report['f1_macro']['value']:.4f}"
    )
    return (
        f"{report['target']}: accuracy {accuracy['value']:.4f} [{accuracy['low']:.4f}, {accuracy['high']:.4f}], "
        f"macro F1 {f1_macro}, agreement {report['agreement']['value']:.4f}, "
        f"p50 {latency['value']:.3f} ms, {report['memory_mb']['value']:.1f} MB, {report['size_bytes'] / 1000:.1f} kB"
    )
