"""Read the reports that the gate judges, and check whether each report can be trusted.

A report can be trusted if it exists, matches its schema, contains the digest of the current file, and agrees with the
numbers in the reports of other stages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.dataset import SPLITS
from stages.core.errors import StageError
from stages.core.files import ModelT, read_model, read_object, sha256
from stages.evaluate.recompute import disagreement, read_predictions
from stages.params.common import Data, TargetName
from stages.report.schemas.data import BalanceReport, QualityMetrics, QualityReport
from stages.report.schemas.evaluation import EvaluationReport
from stages.report.schemas.export import ExportedFile
from stages.report.schemas.training import CompressionReport, SplitScores, TrainingReport

EXPORTED = Path("models/exported")
TRAINED = Path("models/trained/model.pt")
COMPRESSED = Path("models/compressed/model.pt")
REPORTS = Path("reports")
PIPELINE_REPORTS = ("quality.json", "balance.json", "train/summary.json", "compress.json")
# Tolerated difference between two measurements of a network on one split. The predicted class of a borderline sample
# can differ between the two measurements.
NOISE = 0.005


@dataclass(frozen=True)
class Evidence:
    """The evaluation report of one exported file, and whether it can be trusted."""

    report: Mapping[str, Any]
    sha256: str | None  # SHA-256 of the current exported file
    measured_sha256: str | None  # SHA-256 of the exported file that the report describes
    fault: str  # the reason why the report cannot be trusted, or ""


@dataclass(frozen=True)
class Record:
    """A report that concerns all targets: the report on data quality, splits, training or compression."""

    report: Mapping[str, Any]
    fault: str  # the reason why the report cannot be trusted, or ""


def read_evidence(target: str, classes: Sequence[str]) -> Evidence:
    """Read the evaluation report of a target, and check it against the exported file and predictions.csv."""
    report_path, export_path = REPORTS / "evaluate" / target / "metrics.json", EXPORTED / target / "export.json"
    report, evaluated, fault = _read(report_path, EvaluationReport, "evaluate")
    measured = evaluated.model_sha256 if evaluated else None
    _, export, export_fault = _read(export_path, ExportedFile, "export")
    if not export:
        return Evidence(report, None, measured, export_fault)
    path = export_path.parent / export.file
    if not path.is_file():
        return Evidence(report, None, measured, f"{path} is missing")
    digest = sha256(path)
    if not fault and export.sha256 != digest:
        fault = f"{export_path} is stale: it describes a different file"
    if not fault and (measured != digest or report.get("size_bytes") not in (None, path.stat().st_size)):
        fault = f"{report_path} is stale: it was measured on a different file"
    if not fault and evaluated:
        fault = _check_evaluated(report_path, evaluated, target, classes)
    return Evidence(report, digest, measured, fault)


def digests(targets: Iterable[TargetName]) -> dict[str, str]:
    """Return the SHA-256 of every file that the gate judges or reads, by path. Missing files are left out."""
    paths = [TRAINED, COMPRESSED, *(REPORTS / name for name in PIPELINE_REPORTS)]
    for target in targets:
        paths += sorted(path for path in (EXPORTED / target).glob("*") if path.is_file())
        paths += [REPORTS / "evaluate" / target / name for name in ("metrics.json", "predictions.csv")]
    return {path.as_posix(): sha256(path) for path in paths if path.is_file()}


def _check_evaluated(path: Path, report: EvaluationReport, target: str, classes: Sequence[str]) -> str:
    if report.target != target:
        return f"{path}: the report is for the target {report.target!r}"
    if report.classes != list(classes):
        return f"{path}: classes are {report.classes}, but data.classes names {list(classes)}"
    listed = path.with_name("predictions.csv")
    try:
        predictions = read_predictions(listed, classes)
    except OSError as error:
        return f"{listed}: not readable: {error.strerror}"
    except ValueError as error:
        return f"{listed}: {error}"
    return _located(path, disagreement(report, predictions, classes))


def read_records(data: Data, evidence: Mapping[TargetName, Evidence]) -> dict[str, Record]:
    """Read the reports on data quality, splits, training and compression, and check whether they can be trusted.

    The reports are checked against each other, against the evaluation reports in `evidence`, and against the model
    files that they describe.
    """
    quality_path, balance_path, train_path, compress_path = (REPORTS / name for name in PIPELINE_REPORTS)
    quality_json, quality, quality_fault = _read(quality_path, QualityReport, "validate")
    balance_json, balance, balance_fault = _read(balance_path, BalanceReport, "prepare")
    train_json, trained, train_fault = _read(train_path, TrainingReport, "train")
    compress_json, compressed, compress_fault = _read(compress_path, CompressionReport, "compress")
    if balance:
        balance_fault = _located(balance_path, _check_balance(balance, data, evidence))
    if quality:
        quality_fault = _located(quality_path, _check_quality(quality, None if data.kind == "series" else balance))
    if trained:
        train_fault = _located(
            train_path, _check_file(trained.model_sha256, TRAINED) or _check_classes(trained, balance)
        )
    if compressed:
        compress_fault = _located(compress_path, _check_compressed(compressed, trained))
    return {
        "quality": Record(quality_json, quality_fault),
        "balance": Record(balance_json, balance_fault),
        "train": Record(train_json, train_fault),
        "compress": Record(compress_json, compress_fault),
    }


def _read(path: Path, shape: type[ModelT], stage: str) -> tuple[dict[str, Any], ModelT | None, str]:
    """Read a report, and return its JSON object, its pydantic model, and "" or the reason why it is not readable.

    No error is raised for an unreadable report, because such a report makes a check of the gate fail.
    """
    try:
        return read_object(path, stage), read_model(path, shape, stage), ""
    except StageError as error:
        return {}, None, f"{error.where}: {error.found}"


def _located(path: Path, fault: str) -> str:
    """Return the text of a fault with the report's path in front of it, or "" if there is no fault."""
    return f"{path}: {fault}" if fault else ""


def _check_quality(quality: QualityReport, balance: BalanceReport | None) -> str:
    """Return the reason why the report on data quality cannot be trusted, or "".

    Pass `balance` only if each row that met the data contract becomes one sample. The number of prepared samples must
    then be equal to the number of rows that met the contract.
    """
    for where, judged in {"overall": quality.overall, **quality.sources}.items():
        for metric in QualityMetrics.model_fields:
            own = getattr(judged, metric)
            if not own.passed or own.value < own.threshold:
                return (
                    f"the data contract did not pass: {where}, {metric} is {own.value:g}, "
                    f"and the threshold is {own.threshold:g}"
                )
    rows = sum(source.rows for source in quality.sources.values())
    quarantined = sum(source.quarantined for source in quality.sources.values())
    total = quality.quarantine
    if total.rows != quarantined or not math.isclose(total.share, quarantined / rows, abs_tol=1e-9):
        return (
            f"the sources have {quarantined} rows of {rows} in quarantine, "
            f"but the total is given as {total.rows} ({total.share:.4f})"
        )
    if balance:
        parts = (balance.splits.train, balance.splits.validation, balance.splits.test)
        samples = sum(part.samples for part in parts) + balance.missing.rows_dropped
        if rows - quarantined != samples:
            return f"stale: {rows - quarantined} rows met the contract, but {samples} were prepared (balance.json)"
    return ""


def _check_balance(balance: BalanceReport, data: Data, evidence: Mapping[TargetName, Evidence]) -> str:
    for name in type(balance.splits).model_fields:
        own = getattr(balance.splits, name)
        if set(own.classes) != set(data.classes.values()):
            return f"splits.{name} counts classes that differ from data.classes"
        if sum(own.classes.values()) != own.samples:
            return f"splits.{name} has {own.samples} samples, but its classes have {sum(own.classes.values())}"
    sound = {target: own.report for target, own in evidence.items() if not own.fault}
    for target, report in sound.items():
        if report["samples"] != balance.splits.test.samples:
            counts = f"{balance.splits.test.samples} test samples, but the report of {target} has {report['samples']}"
            return f"stale: it counts {counts}"
        for name, row in zip(data.classes.values(), report["confusion"], strict=True):
            if (count := balance.splits.test.classes[name]) != sum(row):
                return (
                    f"stale: it counts {count} test samples of class {name!r}, "
                    f"but the report of {target} has {sum(row)}"
                )
    return ""


def _check_classes(trained: TrainingReport, balance: BalanceReport | None) -> str:
    """Return a fault if a score of the trained network is over other classes than those that have samples, or ""."""
    for name in SPLITS if balance else ():
        assert balance is not None
        counts, partial = balance.splits.counts(name).classes, getattr(trained, name).partial
        present = {own for own, count in counts.items() if count}
        measured = set(partial.classes) if partial else set(counts)
        if measured != present:
            return (
                f"stale: the mean of {name} is over the classes {sorted(measured)}, "
                f"but balance.json has samples of {sorted(present)}"
            )
    return ""


def _check_file(digest: str, path: Path) -> str:
    if not path.is_file():
        return f"{path} is missing, but the report describes it"
    return "" if sha256(path) == digest else f"stale: {path} is not the file that it describes"


def _check_compressed(report: CompressionReport, trained: TrainingReport | None) -> str:
    first, last = report.steps[0], report.steps[-1]
    fault = _check_file(report.trained_sha256, TRAINED) or _check_file(report.model_sha256, COMPRESSED)
    if fault:
        return fault
    if first.name != "trained":
        return f"steps.0 is {first.name!r}, not 'trained'"
    derived = {
        "ratio": (report.ratio, first.size_bytes / last.size_bytes),
        "drop": (report.drop, first.accuracy - last.accuracy),
        "retention": (report.retention, last.accuracy / first.accuracy if first.accuracy else 0.0),
    }
    for name, (reported, computed) in derived.items():
        if not math.isclose(reported, computed, rel_tol=1e-6, abs_tol=1e-9):
            return f"{name} is {reported:g}, but its steps give {computed:g}"
    if trained:
        shared = {
            "parameters": (first.parameters, trained.parameters, 0),
            "size_bytes": (first.size_bytes, trained.size_bytes, 0),
            "accuracy": (first.accuracy, trained.test.accuracy, NOISE),
            "f1_macro": (_f1(first), _f1(trained.test), NOISE),
        }
        if (first.partial and first.partial.classes) != (trained.test.partial and trained.test.partial.classes):
            return "the trained network's f1_macro is over other classes than in train/summary.json"
        for name, (here, there, tolerance) in shared.items():
            if abs(here - there) > tolerance:
                return f"the trained network's {name} is {here:g} here, but {there:g} in train/summary.json"
    return ""


def _f1(scores: SplitScores) -> float:
    """Return the mean F1 score of all classes, or of the classes that have samples if a class has none."""
    mean = scores.partial.f1_macro if scores.partial else scores.f1_macro
    assert mean is not None  # the schema requires one of the two
    return mean
