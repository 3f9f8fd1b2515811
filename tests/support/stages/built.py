"""Write the results of a small pipeline up to its gate: real digits and a real linear classifier in two ONNX files.

`build(root)` writes what the stages before the gate write, in the same formats. Every quality number of a target comes
from the predictions of its file. Times, memory and the training history are invented, because no test of a gate may
depend on how fast a machine is.
"""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sklearn.datasets import load_digits

from stages.core.dataset import Channel, SampleSpec, Scaling
from stages.core.files import sha256, write_json
from stages.metrics.bootstrap import Clusters
from tests.support.stages.target import CLASSES, write_predictions, write_target

TARGETS = {
    "onnx-fp32": {"runtime": "onnxruntime", "precision": "fp32"},
    "onnx-int8": {"runtime": "onnxruntime", "precision": "int8"},
}
SECONDS = {"train": 61.25, "compress": 12.5}
NETWORKS = {"trained": "trained", "model": "compressed"}


def build(root: Path) -> None:
    """Write all results before the gate below `root`, which contains the pipeline's parameters."""
    shared = yaml.safe_load((root / "params.yaml").read_text())
    shared |= {"task": "digits", "targets": TARGETS}
    (root / "params.yaml").write_text(yaml.safe_dump(shared, sort_keys=False))
    edit(root, lambda task: [task["gate"]["targets"].pop(name) for name in ("tflite-fp32", "tflite-int8")])
    edit(root, lambda task: task["gate"].update(metrics={"accuracy": 0.85, "f1_macro": 0.85}))

    splits = _write_data(root)
    x, y = splits["train"]
    one_hot = np.eye(10)[y]
    flat = np.hstack([x.reshape(len(x), -1) / 16.0, np.ones((len(x), 1))])
    solved = np.linalg.solve(flat.T @ flat + 0.1 * np.eye(65), flat.T @ one_hot).astype(np.float32)
    weights, bias = 8 * solved[:-1], 8 * solved[-1]
    for name in ("trained", "compressed"):
        (root / "models" / name).mkdir(parents=True)
        with (root / "models" / name / "model.pt").open("wb") as stream:
            np.savez(stream, weights=weights, bias=bias)
    for target in TARGETS:
        write_target(root, target, weights, bias, *splits["test"])
    metrics = report(root, "onnx-fp32")
    quality = {"loss": 0.41, "accuracy": metrics["accuracy"]["value"], "f1_macro": metrics["f1_macro"]["value"]}
    _write_training(root, quality)


def edit(root: Path, change: Any) -> None:
    """Let `change` alter the task's parameters in place."""
    path = root / "tasks" / "digits" / "params.yaml"
    task = yaml.safe_load(path.read_text())
    change(task)
    path.write_text(yaml.safe_dump(task, sort_keys=False))


def report(root: Path, target: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(_report_path(root, target).read_text())
    return value


def rename_classes(root: Path, names: list[str]) -> None:
    """Give the ten classes other names, in the parameters and in the results of the stages."""
    new = dict(zip(CLASSES, names, strict=True))

    def renamed(by_class: dict[str, Any]) -> dict[str, Any]:
        return {new[name]: value for name, value in by_class.items()}

    edit(root, lambda task: task["data"].update(classes=new))
    balance = json.loads((root / "reports" / "balance.json").read_text())
    for split in balance["splits"].values():
        split["classes"] = renamed(split["classes"])
    write_json(root / "reports" / "balance.json", balance)
    for target in TARGETS:
        own = report(root, target)
        fields = {field: renamed(own[field]) for field in ("per_class", "prediction_ratios")}
        write_json(_report_path(root, target), {**own, **fields, "classes": names})
        listed = _report_path(root, target).with_name("predictions.csv")
        rows = list(csv.DictReader(listed.read_text().splitlines()))
        named = ("actual", "predicted", "reference")
        write_predictions(listed, [{**row, **{column: new[row[column]] for column in named}} for row in rows])


def regroup(root: Path, groups: list[str]) -> None:
    """Assign the 360 test samples to these groups in the results of the stages."""
    for target in TARGETS:
        listed = _report_path(root, target).with_name("predictions.csv")
        rows = list(csv.DictReader(listed.read_text().splitlines()))
        right: dict[str, list[bool]] = {name: [] for name in sorted(groups)}
        for name, row in zip(groups, rows, strict=True):
            row["group"] = name
            right[name].append(row["actual"] == row["predicted"])
        write_predictions(listed, rows)
        own = {name: {"accuracy": float(np.mean(hits)), "samples": len(hits)} for name, hits in right.items()}
        change_report(root, target, by_group=own, intervals=Clusters(np.array(groups), 0, 1).describe())


def change_report(root: Path, target: str, /, **values: Any) -> None:
    """Set top-level fields of a target's metrics.json; NaN is written as Python writes it."""
    _report_path(root, target).write_text(json.dumps({**report(root, target), **values}))


def record_gate(root: Path) -> None:
    """Put the reports of the gate into dvc.lock and DVC's cache, as `dvc repro` does after the stage has passed."""
    outs = []
    for name in ("reports/gate.json", "reports/metrics.json"):
        content = (root / name).read_bytes()
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        cached = root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(content)
        outs.append({"path": name, "hash": "md5", "md5": digest, "size": len(content)})
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"gate": {"outs": outs}}}))


def _report_path(root: Path, target: str) -> Path:
    return root / "reports" / "evaluate" / target / "metrics.json"


def _write_data(root: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    digits = load_digits()
    x, y = digits.images.astype(np.float32)[:, None], digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(y))
    parts = {"test": order[:360], "validation": order[360:630], "train": order[630:]}
    prepared = root / "data" / "prepared"
    splits = {}
    for split, index in parts.items():
        (prepared / split).mkdir(parents=True)
        index = np.sort(index)
        splits[split] = (x[index], y[index])
        np.save(prepared / split / "x.npy", x[index])
        np.save(prepared / split / "y.npy", y[index])
        np.save(prepared / split / "group.npy", np.array([f"s{i}" for i in index]))
    SampleSpec(
        kind="image", shape=[1, 8, 8], channels=[Channel(name="ink", unit="1/16")], classes=CLASSES, rate_hz=None,
        scaling=Scaling(method="normalise", center=[0.0], scale=[16.0]),
    ).write(prepared)  # fmt: skip
    snapshot = root / "data" / "snapshot" / "digits"
    snapshot.mkdir(parents=True)
    np.save(snapshot / "part-00000.npy", x)
    origin = {"url": "pkg:pypi/scikit-learn", "sha256": sha256(snapshot / "part-00000.npy"), "bytes": x.nbytes}
    source = {"type": "embedded", "rows": len(y) + 2, "time": "2026-11-02T08:30:00+00:00", "origins": [origin]}
    source["left_out"] = [{"reason": "hidden", "count": 4, "first": [".a.npy", ".b.npy", ".c.npy", ".d.npy"]}]
    provenance = {"snapshot": "2026-11-01T00:00:00+00:00", "sources": {"digits": source}}
    write_json(root / "data" / "provenance.json", provenance)
    means = splits["train"][0].mean(axis=(1, 2, 3))
    edges = np.quantile(means, np.linspace(0, 1, 11))[1:-1]
    ratios = np.bincount(np.searchsorted(edges, means), minlength=10) / len(means)
    feature = {
        "name": "ink.mean",
        "channel": 0,
        "statistic": "mean",
        "edges": edges.tolist(),
        "ratios": ratios.tolist(),
    }
    labels = {name: float(np.mean(splits["train"][1] == i)) for i, name in enumerate(CLASSES)}
    write_json(
        root / "data" / "drift_reference.json",
        {"schema_version": 1, "samples": len(means), "features": [feature], "labels": labels},
    )
    balance = {
        split: {
            "samples": len(labels_),
            "groups": len(labels_),
            "classes": {name: int(np.sum(labels_ == i)) for i, name in enumerate(CLASSES)},
        }
        for split, (_, labels_) in splits.items()
    }
    missing = {"method": "drop", "values": {}, "rows_dropped": 0}
    write_json(root / "reports" / "balance.json", {"splits": balance, "missing": missing})
    full_score = {"value": 1.0, "threshold": 0.99, "passed": True, "measured": True, "worst_columns": []}
    judged = dict.fromkeys(("completeness", "consistency", "accuracy", "timeliness", "validity"), full_score)
    write_json(
        root / "reports" / "quality.json",
        {
            "overall": judged,
            "sources": {"digits": {**judged, "rows": len(y) + 2, "quarantined": 2}},
            "quarantine": {"rows": 2, "share": 2 / (len(y) + 2), "reasons": {"values: out of range": 2}},
        },
    )
    return splits


def _write_training(root: Path, quality: dict[str, float]) -> None:
    train = root / "reports" / "train"
    train.mkdir(parents=True)
    size = 350_000
    summary = {
        "network": "cnn", "parameters": size // 4, "size_bytes": size, "best_epoch": 7, "epochs": 12,
        "metric": "accuracy", "train": {"loss": 0.36, "accuracy": 0.975, "f1_macro": 0.97}, "validation": quality,
        "test": quality,
        "model_sha256": sha256(root / "models" / "trained" / "model.pt"),
    }  # fmt: skip
    write_json(train / "summary.json", summary)
    with (train / "history.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        columns = "epoch,train_loss,validation_loss,validation_accuracy,validation_f1_macro,learning_rate"
        rows.writerow(columns.split(","))
        for epoch in range(12):
            loss = 2.2 * 0.7**epoch
            rows.writerow([epoch, loss + 0.1, loss + 0.2 + 0.004 * epoch, 0.93 - 0.5 * loss / 2.2, 0.9, 0.002])
    steps = []
    accuracy = quality["accuracy"]
    for name, share, cost in (("trained", 1, 0.0), ("prune", 4, 0.2), ("finetune", 4, 0.005)):
        sizes = {"parameters": size // 4 // share, "size_bytes": size // share}
        steps.append({"name": name, **sizes, "accuracy": accuracy - cost, "f1_macro": quality["f1_macro"] - cost})
    digests = {f"{which}_sha256": sha256(root / "models" / name / "model.pt") for which, name in NETWORKS.items()}
    compressed = {**digests, "steps": steps, "ratio": 4.0, "drop": 0.005, "retention": 1 - 0.005 / accuracy}
    write_json(root / "reports" / "compress.json", compressed)
    for stage, seconds in SECONDS.items():
        write_json(root / "reports" / "durations" / f"{stage}.json", {"seconds": seconds})
