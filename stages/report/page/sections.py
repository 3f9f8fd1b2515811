"""Compute, from the reports, the values that the sections of the page reports/index.html show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from stages.metrics.confusion import name_classes
from stages.report.page import figures
from stages.report.page.figures import Bar, Line, Point, percent
from stages.report.verdict import SUPPORT

SPLITS = ("train", "validation", "test")
MAX_GROUPS = 24  # more bars than this are not readable
MIN_GROUP_SAMPLES = 5  # with fewer samples, the accuracy of a group is not meaningful

STEPS = {
    "trained": "trained",
    "distil": "distilled into a smaller network",
    "prune": "channels pruned",
    "finetune": "fine-tuned",
}
# Metrics that are compared with the previous build, each as: title, key in `target_row`, key in reports/metrics.json,
# format.
COMPARED = (
    ("Accuracy", "accuracy", "accuracy", percent),
    ("F1, macro", "f1", "f1_macro", percent),
    ("Size", "size_kb", "size_kb", "{:.1f} kB".format),
    ("Latency p95", "p95", "latency_p95_ms", "{:.3g} ms".format),
    ("Peak memory", "memory", "memory_mb", "{:.3g} MB".format),
)


def machine(properties: Mapping[str, str | int]) -> str:
    """Return one line that describes the machine on which a target was measured."""
    remaining = dict(properties)
    threads = remaining.pop("threads", 1)
    first = [str(remaining.pop(key)) for key in ("cpu", "system", "runtime") if key in remaining]
    return ", ".join([*first, *map(str, remaining.values()), f"{threads} thread" + ("s" if threads != 1 else "")])


def target_row(
    target: str, gate: Mapping[str, Any], report: Mapping[str, Any] | None, trained: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the row for the target `target` in the page's table of targets. A number that was not measured is None.

    Args:
        target: The target's name.
        gate: Content of reports/gate.json.
        report: Content of reports/evaluate/<target>/metrics.json; None if the file is unreadable.
        trained: Content of reports/train/summary.json; None if the file is unreadable.
    """

    def estimate(*path: str) -> Mapping[str, float] | None:
        value: Any = report
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value if isinstance(value, Mapping) and isinstance(value.get("value"), int | float) else None

    accuracy, f1, f1_note = estimate("accuracy"), estimate("f1_macro"), ""
    if partial := report.get("partial") if report else None:
        over = name_classes(partial["classes"], partial["absent"])
        if any(check["name"] == SUPPORT["test"] for check in gate["checks"]):
            f1_note = f"undefined: no test sample of {', '.join(partial['absent'])}"
        else:  # gate.support is null
            f1, f1_note = estimate("partial", "f1_macro"), f"over {over}"
    before = trained["test"]["accuracy"] if trained else None
    size = report.get("size_bytes") if report else None
    return {
        "target": target,
        **gate["targets"][target],
        "accuracy": accuracy,
        "f1": f1,
        "f1_note": f1_note,
        "agreement": estimate("agreement"),
        "retention": accuracy["value"] / before if accuracy and before else None,
        "size_kb": size / 1000 if size else None,
        "p50": estimate("latency_ms", "p50"),
        "p95": estimate("latency_ms", "p95"),
        "memory": estimate("memory_mb"),
    }


def changes(
    rows: Sequence[Mapping[str, Any]], previous: Mapping[str, Mapping[str, float | str]]
) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return a table that compares each target's metrics with its metrics in the previous build.

    For each target, the table has the title, the previous value and the current value of each metric in `COMPARED`.

    Args:
        rows: The results of `target_row` for all targets.
        previous: Content of reports/metrics.json from the previous build. If it is empty, the table is empty.
    """
    table: list[tuple[str, list[tuple[str, str, str]]]] = []
    for row in rows if previous else []:
        cells = []
        for title, key, name, form in COMPARED:
            earlier = previous.get(row["target"], {})
            now, before = row[key], earlier.get(name)
            if isinstance(now, Mapping):
                now = now["value"]
            # Means over different classes cannot be compared.
            over = f"over {earlier['classes_with_samples']}" if "classes_with_samples" in earlier else ""
            if isinstance(before, str) or (key == "f1" and over != row["f1_note"]):
                before = None
            cells.append((title, "-" if before is None else form(before), "-" if now is None else form(now)))
        table.append((row["target"], cells))
    return table


def failures(checks: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Return each failed check: its name, and the results of the targets that failed the check."""
    failed = [check for check in checks if not check["passed"]]
    names = dict.fromkeys(check["name"] for check in failed)
    return [(name, [check for check in failed if check["name"] == name]) for name in names]


def checks_by_name(
    checks: Sequence[Mapping[str, Any]], targets: Sequence[str]
) -> list[tuple[str, list[Mapping[str, Any] | None]]]:
    """Return the name of each check with one result per target; a result is None if the target has no such check."""
    cells = {(check["name"], check["target"]): check for check in checks}
    return [
        (name, [cells.get((name, target)) for target in targets]) for name in dict.fromkeys(c["name"] for c in checks)
    ]


def quality(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for the page's section on data quality, from the content of reports/quality.json."""
    bars = []
    for metric, own in report["overall"].items():
        words = f"{percent(own['value'])}, needed {percent(own['threshold'])}"
        if own["measured"]:
            bars.append(Bar(metric, own["value"], words, own["threshold"]))
        else:
            bars.append(Bar(metric, 0.0, "not measured: the contract has no rule"))
    return {
        "picture": figures.bars("Data quality: each metric and its threshold", bars, 1.0),
        "metrics": list(report["overall"]),
        "sources": report["sources"],
        "quarantine": report["quarantine"],
    }


def balance(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for the page's section on classes and splits, from the content of reports/balance.json."""
    splits = {split: report["splits"][split] for split in SPLITS}
    classes = list(splits["train"]["classes"])
    parts = {split: [own["classes"].get(name, 0) for name in classes] for split, own in splits.items()}
    return {
        "picture": figures.stacked("Samples of each class in each split", classes, parts),
        "splits": splits,
        "classes": [(name, [own["classes"].get(name, 0) for own in splits.values()]) for name in classes],
        "warnings": report.get("warnings", []),
        # If the data has no groups, the group column has a different value in every sample.
        "grouped": any(own["groups"] != own["samples"] for own in splits.values()),
    }


def training(history: Sequence[Mapping[str, float]], summary: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the plots for the page's section on training: the loss and the validation scores of each epoch.

    Args:
        history: Rows of reports/train/history.csv.
        summary: Content of reports/train/summary.json; None if the file is unreadable.
    """
    epochs = [row["epoch"] for row in history]
    best = float(summary["best_epoch"]) if summary else None
    partial = summary["validation"].get("partial") if summary else None
    over = name_classes(partial["classes"], partial["absent"]) if partial else ""
    f1 = "validation_f1_partial" if partial else "validation_f1_macro"

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
                Line(f"F1, {over.partition(' classes')[0]}" if partial else "macro F1", column(f1), "s2"),
            ],
            "validation split",
            True,
            best,
        ),
        "over": over,
        "absent": partial["absent"] if partial else [],
    }


def compression(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for the page's section on compression, from the content of reports/compress.json."""
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


def tradeoffs(evaluated: Mapping[str, Mapping[str, Any]], gate: Mapping[str, Any]) -> dict[str, Markup]:
    """Return two plots of the targets: accuracy against file size, and accuracy against latency.

    Args:
        evaluated: Content of reports/evaluate/<target>/metrics.json, by target.
        gate: Content of reports/gate.json.
    """

    def with_interval(estimate: Mapping[str, float]) -> tuple[float, float, float]:
        return estimate["value"], estimate["low"], estimate["high"]

    size, latency = [], []
    for target, report in evaluated.items():
        accuracy, passed = with_interval(report["accuracy"]), gate["targets"][target]["passed"]
        kilobytes = report["size_bytes"] / 1000
        size.append(Point(target, (kilobytes, kilobytes, kilobytes), accuracy, passed))
        latency.append(Point(target, with_interval(report["latency_ms"]["p95"]), accuracy, passed))
    return {
        "size": figures.scatter("Accuracy against size, per target", size, "size of the file, kB", "accuracy"),
        "latency": figures.scatter(
            "Accuracy against latency, per target", latency, "latency of one sample, p95, ms", "accuracy"
        ),
    }


def mistakes(evaluated: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values for the page's section on wrong predictions.

    `evaluated` is the content of reports/evaluate/<target>/metrics.json, by target.
    """
    first = next(iter(evaluated.values()))
    classes = first["classes"]  # in the order of the matrix; `per_class` is sorted by name
    sizes = [own["samples"] for own in first["by_group"].values()]
    groups = {}
    if 0 < len(sizes) <= MAX_GROUPS and min(sizes) >= MIN_GROUP_SAMPLES:
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
