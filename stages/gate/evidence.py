"""What the gate judges by, and why any of it cannot be believed.

A report counts when it is there, is of the shape that its stage writes, and describes what lies there now: the digest
of the file that it measured, and the numbers that another stage found for the same thing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import StageError
from stages.core.files import ModelT, read_model, read_object, sha256
from stages.evaluate.recompute import disagreement, read_predictions
from stages.params.common import Data, TargetName
from stages.report.schemas.data import BalanceReport, QualityMetrics, QualityReport
from stages.report.schemas.evaluation import EvaluationReport
from stages.report.schemas.export import ExportedFile
from stages.report.schemas.training import CompressionReport, TrainingReport

EXPORTED = Path("models/exported")
TRAINED = Path("models/trained/model.pt")
COMPRESSED = Path("models/compressed/model.pt")
REPORTS = Path("reports")
PIPELINE_REPORTS = ("quality.json", "balance.json", "train/summary.json", "compress.json")
# One network on one split, measured twice: a sample on the border of two classes may fall to either side.
NOISE = 0.005


@dataclass(frozen=True)
class Evidence:
    """What is known of one exported file: its report, its digest, and why the report cannot be trusted ("": it can)."""

    report: Mapping[str, Any]
    sha256: str | None
    measured_sha256: str | None
    fault: str


@dataclass(frozen=True)
class Record:
    """One report on the pipeline itself, and why it cannot be trusted ("": it can)."""

    report: Mapping[str, Any]
    fault: str


def read_evidence(target: str, classes: Sequence[str]) -> Evidence:
    """The target's report beside the digest of the file that lies there now, and counted again from its predictions."""
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
        fault = f"{export_path} is stale: it describes another file"
    if not fault and (measured != digest or report.get("size_bytes") not in (None, path.stat().st_size)):
        fault = f"{report_path} is stale: it was measured on another file"
    if not fault and evaluated:
        fault = _doubt_evaluated(report_path, evaluated, target, classes)
    return Evidence(report, digest, measured, fault)


def digests(targets: Iterable[TargetName]) -> dict[str, str]:
    """SHA-256 of every file that the gate judges or judges by, by its path; one that is missing has none."""
    paths = [TRAINED, COMPRESSED, *(REPORTS / name for name in PIPELINE_REPORTS)]
    for target in targets:
        paths += sorted(path for path in (EXPORTED / target).glob("*") if path.is_file())
        paths += [REPORTS / "evaluate" / target / name for name in ("metrics.json", "predictions.csv")]
    return {path.as_posix(): sha256(path) for path in paths if path.is_file()}


def _doubt_evaluated(path: Path, report: EvaluationReport, target: str, classes: Sequence[str]) -> str:
    if report.target != target:
        return f"{path}: target is {report.target!r}"
    if report.classes != list(classes):
        return f"{path}: classes are {report.classes}, and data.classes names {list(classes)}"
    listed = path.with_name("predictions.csv")
    try:
        predictions = read_predictions(listed, classes)
    except OSError as error:
        return f"{listed}: not readable: {error.strerror}"
    except ValueError as error:
        return f"{listed}: {error}"
    return _named(path, disagreement(report, predictions, classes))


def read_records(data: Data, evidence: Mapping[TargetName, Evidence]) -> dict[str, Record]:
    """The reports on the data's quality, the splits, the training and the compression, each checked against the
    others and against the files that lie there now.
    """
    quality_path, balance_path, train_path, compress_path = (REPORTS / name for name in PIPELINE_REPORTS)
    quality_json, quality, quality_fault = _read(quality_path, QualityReport, "validate")
    balance_json, balance, balance_fault = _read(balance_path, BalanceReport, "prepare")
    train_json, trained, train_fault = _read(train_path, TrainingReport, "train")
    compress_json, compressed, compress_fault = _read(compress_path, CompressionReport, "compress")
    if balance:
        balance_fault = _named(balance_path, _doubt_balance(balance, data, evidence))
    if quality:
        quality_fault = _named(quality_path, _doubt_quality(quality, None if data.kind == "series" else balance))
    if trained:
        train_fault = _named(train_path, _doubt_file(trained.model_sha256, TRAINED))
    if compressed:
        compress_fault = _named(compress_path, _doubt_compressed(compressed, trained))
    return {
        "quality": Record(quality_json, quality_fault),
        "balance": Record(balance_json, balance_fault),
        "train": Record(train_json, train_fault),
        "compress": Record(compress_json, compress_fault),
    }


def _read(path: Path, shape: type[ModelT], stage: str) -> tuple[dict[str, Any], ModelT | None, str]:
    """A report that is not there or of another shape is a failed check, with its reason, not an end of the run."""
    try:
        return read_object(path, stage), read_model(path, shape, stage), ""
    except StageError as error:
        return {}, None, f"{error.where}: {error.found}"


def _named(path: Path, doubt: str) -> str:
    return f"{path}: {doubt}" if doubt else ""


def _doubt_quality(quality: QualityReport, balance: BalanceReport | None) -> str:
    """`balance` where a row that the contract lets through is one sample."""
    for where, judged in {"overall": quality.overall, **quality.sources}.items():
        for metric in QualityMetrics.model_fields:
            own = getattr(judged, metric)
            if not own.passed or own.value < own.threshold:
                return f"the data contract did not pass: {where}, {metric} {own.value:g}, needed {own.threshold:g}"
    rows = sum(source.rows for source in quality.sources.values())
    quarantined = sum(source.quarantined for source in quality.sources.values())
    whole = quality.quarantine
    if whole.rows != quarantined or not math.isclose(whole.share, quarantined / rows, abs_tol=1e-9):
        return f"the sources have {quarantined} rows of {rows} in quarantine, together {whole.rows} ({whole.share:.4f})"
    if balance:
        parts = (balance.splits.train, balance.splits.validation, balance.splits.test)
        samples = sum(part.samples for part in parts) + balance.missing.rows_dropped
        if rows - quarantined != samples:
            return f"stale: {rows - quarantined} rows met the contract, {samples} were prepared (balance.json)"
    return ""


def _doubt_balance(balance: BalanceReport, data: Data, evidence: Mapping[TargetName, Evidence]) -> str:
    for name in type(balance.splits).model_fields:
        own = getattr(balance.splits, name)
        if set(own.classes) != set(data.classes.values()):
            return f"splits.{name} counts other classes than data.classes names"
        if sum(own.classes.values()) != own.samples:
            return f"splits.{name} has {own.samples} samples, its classes {sum(own.classes.values())}"
    for target, known in evidence.items():
        found, needed = known.report.get("samples"), balance.splits.test.samples
        if not known.fault and found != needed:
            return f"stale: it counts {needed} test samples, the report of {target} {found}"
        for name, row in zip(data.classes.values(), [] if known.fault else known.report["confusion"], strict=False):
            if (count := balance.splits.test.classes[name]) != sum(row):
                return f"stale: it counts {count} test samples of class {name!r}, the report of {target} {sum(row)}"
    return ""


def _doubt_file(digest: str, path: Path) -> str:
    if not path.is_file():
        return f"{path}, which it describes, is missing"
    return "" if sha256(path) == digest else f"stale: {path} is another file than it describes"


def _doubt_compressed(report: CompressionReport, trained: TrainingReport | None) -> str:
    first, last = report.steps[0], report.steps[-1]
    doubt = _doubt_file(report.trained_sha256, TRAINED) or _doubt_file(report.model_sha256, COMPRESSED)
    if doubt:
        return doubt
    if first.name != "trained":
        return f"steps.0 is {first.name!r}, not 'trained'"
    told = {
        "ratio": (report.ratio, first.size_bytes / last.size_bytes),
        "drop": (report.drop, first.accuracy - last.accuracy),
        "retention": (report.retention, last.accuracy / first.accuracy if first.accuracy else 0.0),
    }
    for name, (found, needed) in told.items():
        if not math.isclose(found, needed, rel_tol=1e-6, abs_tol=1e-9):
            return f"{name} is {found:g}, and its steps make {needed:g}"
    if trained:
        same = {
            "parameters": (first.parameters, trained.parameters, 0),
            "size_bytes": (first.size_bytes, trained.size_bytes, 0),
            "accuracy": (first.accuracy, trained.test.accuracy, NOISE),
            "f1_macro": (first.f1_macro, trained.test.f1_macro, NOISE),
        }
        for name, (found, needed, noise) in same.items():
            if abs(found - needed) > noise:
                return f"the trained network's {name} is {found:g} here and {needed:g} in train/summary.json"
    return ""
