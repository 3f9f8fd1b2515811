"""reports/index.html: one self-contained page, drawn from the reports alone; what is missing is said, not hidden."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from stages.core.errors import StageError
from stages.core.files import read_model, read_object, write_text
from stages.params.common import Data
from stages.report.page import figures
from stages.report.page.figures import Bar, Line, Point, percent
from stages.report.schemas.base import ReportModel
from stages.report.schemas.data import BalanceReport, QualityReport
from stages.report.schemas.evaluation import EvaluationReport
from stages.report.schemas.training import CompressionReport, TrainingReport
from stages.report.verdict import PIPELINE

TEMPLATE = Path(__file__).with_name("page.html.j2")
SPLITS = ("train", "validation", "test")
MANY = 24  # more bars than this tell nothing
FEW = 5  # an accuracy over fewer samples than this tells nothing

STEPS = {
    "trained": "trained",
    "distil": "distilled into a smaller network",
    "prune": "channels pruned",
    "finetune": "fine-tuned",
}


def render(name: str, data: Data, gate: Mapping[str, Any], reports: Path) -> str:
    """The page. A report that is missing or unreadable leaves out its pictures and is named on the page."""
    missing: list[str] = []
    targets = list(gate["targets"])
    evaluated = {t: _optional(reports / "evaluate" / t / "metrics.json", EvaluationReport, missing) for t in targets}
    evaluated = {target: report for target, report in evaluated.items() if report}
    trained = _optional(reports / "train" / "summary.json", TrainingReport, missing)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = percent
    environment.globals["interval"] = figures.interval
    sections = {
        "quality": _drawn(_quality, _optional(reports / "quality.json", QualityReport, missing), missing),
        "balance": _drawn(_balance, _optional(reports / "balance.json", BalanceReport, missing), missing),
        "training": _drawn(_training, (_history(reports / "train" / "history.csv", missing), trained), missing),
        "compression": _drawn(_compression, _optional(reports / "compress.json", CompressionReport, missing), missing),
        "tradeoffs": _drawn(_tradeoffs, (evaluated, gate), missing),
        "mistakes": _drawn(_mistakes, evaluated, missing),
    }
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=name,
        data=data,
        gate=gate,
        trained=trained,
        evaluated=evaluated,
        rows=[_row(target, gate, evaluated.get(target), trained) for target in targets],
        checks=_matrix([check for check in gate["checks"] if check["target"] != PIPELINE], targets),
        records=[check for check in gate["checks"] if check["target"] == PIPELINE],
        failures=_failures(gate["checks"]),
        intervals=next((own["intervals"] for own in evaluated.values() if own.get("intervals")), None),
        machines=sorted({_machine(report["machine"]) for report in evaluated.values() if report.get("machine")}),
        missing=missing,
        **sections,
    )


def write_page(html: str, path: Path) -> None:
    """Replace the page, whole."""
    write_text(path, html)


def _optional(path: Path, shape: type[ReportModel], missing: list[str]) -> Any:
    try:
        read_model(path, shape, path.stem)
        return read_object(path, path.stem)
    except StageError:
        missing.append(path.as_posix())
        return None


def _history(path: Path, missing: list[str]) -> list[dict[str, float]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]
    except (OSError, ValueError, TypeError):
        rows = []
    if not rows:
        missing.append(path.as_posix())
    return rows


def _drawn(draw: Any, report: Any, missing: list[str]) -> Any:
    """A report of another shape than the page knows must not hide the gate's verdict: that picture is left out."""
    if report is None:
        return None
    try:
        return draw(*report) if isinstance(report, tuple) else draw(report)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        missing.append(f"{draw.__name__.strip('_')}: {type(error).__name__} {error}")
        return None


def _machine(machine: Mapping[str, str | int]) -> str:
    """Return the machine of a measurement in one line."""
    properties = dict(machine)
    threads = properties.pop("threads", 1)
    first = [str(properties.pop(key)) for key in ("cpu", "system", "runtime") if key in properties]
    return ", ".join([*first, *map(str, properties.values()), f"{threads} thread" + ("s" if threads != 1 else "")])


def _row(target: str, gate: Mapping[str, Any], report: Mapping[str, Any] | None, trained: Any) -> dict[str, Any]:
    """One line of the table of targets; None where there is no number."""

    def estimate(*path: str) -> Mapping[str, float] | None:
        found: Any = report
        for part in path:
            found = found.get(part) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) and isinstance(found.get("value"), int | float) else None

    accuracy = estimate("accuracy")
    before = (trained or {}).get("test", {}).get("accuracy")
    return {
        "target": target,
        **gate["targets"][target],
        "accuracy": accuracy,
        "f1": estimate("f1_macro"),
        "agreement": estimate("agreement"),
        "retention": accuracy["value"] / before if accuracy and before else None,
        "size_kb": report["size_bytes"] / 1000 if report and report.get("size_bytes") else None,
        "p50": estimate("latency_ms", "p50"),
        "p95": estimate("latency_ms", "p95"),
        "memory": estimate("memory_mb"),
    }


def _failures(checks: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Check name, then what it found in each target that failed it."""
    failed = [check for check in checks if not check["passed"]]
    names = dict.fromkeys(check["name"] for check in failed)
    return [(name, [check for check in failed if check["name"] == name]) for name in names]


def _matrix(checks: list[dict[str, Any]], targets: list[str]) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """Check name, then per target its check; None where the target is not judged by it."""
    cells = {(check["name"], check["target"]): check for check in checks}
    return [
        (name, [cells.get((name, target)) for target in targets]) for name in dict.fromkeys(c["name"] for c in checks)
    ]


def _quality(report: Mapping[str, Any]) -> dict[str, Any]:
    bars = []
    for metric, own in report["overall"].items():
        words = f"{percent(own['value'])}, needed {percent(own['threshold'])}"
        if own["measured"]:
            bars.append(Bar(metric, own["value"], words, own["threshold"]))
        else:
            bars.append(Bar(metric, 0.0, "no rule in the contract, so nothing to measure"))
    return {
        "picture": figures.bars("Data quality, each metric beside its threshold", bars, 1.0),
        "metrics": list(report["overall"]),
        "sources": report["sources"],
        "quarantine": report["quarantine"],
    }


def _balance(report: Mapping[str, Any]) -> dict[str, Any]:
    splits = {split: report["splits"][split] for split in SPLITS}
    classes = list(splits["train"]["classes"])
    parts = {split: [own["classes"].get(name, 0) for name in classes] for split, own in splits.items()}
    return {"picture": figures.stacked("Samples of each class in each split", classes, parts), "splits": splits}


def _training(history: list[dict[str, float]], summary: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not history:
        return None
    epochs = [row["epoch"] for row in history]
    best = float(summary["best_epoch"]) if summary else None

    def column(name: str) -> list[float]:
        return [row[name] for row in history]

    return {
        "loss": figures.curves(
            "Loss over the epochs of training",
            epochs,
            [Line("training", column("train_loss"), "s1"), Line("validation", column("validation_loss"), "s2")],
            "loss",
            False,
            best,
        ),
        "accuracy": figures.curves(
            "Validation accuracy and macro F1 over the epochs of training",
            epochs,
            [
                Line("accuracy", column("validation_accuracy"), "s1"),
                Line("macro F1", column("validation_f1_macro"), "s2"),
            ],
            "validation split",
            True,
            best,
        ),
    }


def _compression(report: Mapping[str, Any]) -> dict[str, Any]:
    steps = report["steps"]
    rows = [
        Bar(
            STEPS.get(step["name"], step["name"]),
            step["size_bytes"],
            f"{step['size_bytes'] / 1000:,.1f} kB, accuracy {percent(step['accuracy'])}",
        )
        for step in steps
    ]
    return {
        "picture": figures.bars("Size of the network after each step", rows, max(row.value for row in rows)),
        "ratio": report["ratio"],
        "drop": report["drop"],
        "removed": 1 - steps[-1]["parameters"] / steps[0]["parameters"],
    }


def _tradeoffs(evaluated: Mapping[str, Mapping[str, Any]], gate: Mapping[str, Any]) -> dict[str, Markup] | None:
    if not evaluated:
        return None

    def three(estimate: Mapping[str, float], scale: float = 1.0) -> tuple[float, float, float]:
        return estimate["value"] * scale, estimate["low"] * scale, estimate["high"] * scale

    size, latency = [], []
    for target, report in evaluated.items():
        quality, passed = three(report["accuracy"]), gate["targets"][target]["passed"]
        kilobytes = report["size_bytes"] / 1000
        size.append(Point(target, (kilobytes, kilobytes, kilobytes), quality, passed))
        latency.append(Point(target, three(report["latency_ms"]["p95"]), quality, passed))
    return {
        "size": figures.scatter("Accuracy against size, per target", size, "size of the file, kB", "accuracy"),
        "latency": figures.scatter(
            "Accuracy against latency, per target", latency, "latency of one sample, p95, ms", "accuracy"
        ),
    }


def _mistakes(evaluated: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    if not evaluated:
        return None
    first = next(iter(evaluated.values()))
    classes = first["classes"]  # the order of the matrix; objects in JSON are sorted by name
    groups = {}
    if 0 < len(first["by_group"]) <= MANY and all(own["samples"] >= FEW for own in first["by_group"].values()):
        for target, report in evaluated.items():
            rows = [
                Bar(name, own["accuracy"], f"{percent(own['accuracy'])} of {own['samples']:,}")
                for name, own in report["by_group"].items()
            ]
            groups[target] = figures.bars(f"Accuracy by group, {target}", rows, 1.0)
    return {
        "confusions": [
            (target, figures.confusion(f"Confusion matrix of {target}", report["confusion"], report["classes"]))
            for target, report in evaluated.items()
        ],
        "classes": [
            (name, first["per_class"][name]["support"], [own["per_class"][name]["f1"] for own in evaluated.values()])
            for name in classes
        ],
        "groups": groups,
    }
