"""A small pipeline run up to its gate, made quickly: real digits, a real linear classifier in two real ONNX files.

`build(root)` writes what the stages before the gate write, in the same shapes. Every quality number of a target comes
from its file's own predictions; times, memory and the history of the training are made up: no test of a gate may hang
on how fast a machine is.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import yaml
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from stages.clusters import Clusters
from stages.dataset import Channel, SampleSpec, Scaling
from stages.files import sha256, write_json

TARGETS = {
    "onnx-fp32": {"runtime": "onnxruntime", "precision": "fp32"},
    "onnx-int8": {"runtime": "onnxruntime", "precision": "int8"},
}
CLASSES = [str(digit) for digit in range(10)]
GROUPS = [f"s{i}" for i in range(360)]  # of the test samples: each is its own
PREDICTIONS = ["group", "actual", "predicted", "confidence", "reference"]
LATENCY_MS = {"onnx-fp32": 0.012, "onnx-int8": 0.019}
MEMORY_MB = 31.5
NETWORKS = {"trained": "trained", "model": "compressed"}


def build(root: Path) -> None:
    """Write everything up to the gate below `root`, which holds the pipeline's parameters."""
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
        _write_target(root, target, weights, bias, *splits["test"])
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
    """Give the ten classes other names, in the parameters and in what the stages wrote of them."""
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
        _write_predictions(listed, [{**row, **{column: new[row[column]] for column in named}} for row in rows])


def regroup(root: Path, groups: list[str]) -> None:
    """Let the test samples be of these groups, [360], in what the stages wrote of them."""
    for target in TARGETS:
        listed = _report_path(root, target).with_name("predictions.csv")
        rows = list(csv.DictReader(listed.read_text().splitlines()))
        right: dict[str, list[bool]] = {name: [] for name in sorted(groups)}
        for name, row in zip(groups, rows, strict=True):
            row["group"] = name
            right[name].append(row["actual"] == row["predicted"])
        _write_predictions(listed, rows)
        own = {name: {"accuracy": float(np.mean(hits)), "samples": len(hits)} for name, hits in right.items()}
        change_report(root, target, by_group=own, intervals=Clusters(np.array(groups), 0, 1).describe())


def change_report(root: Path, target: str, /, **values: Any) -> None:
    """Set top-level fields of a target's metrics.json; NaN is written as Python writes it."""
    _report_path(root, target).write_text(json.dumps({**report(root, target), **values}))


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
    whole = {"value": 1.0, "threshold": 0.99, "passed": True, "measured": True, "worst_columns": []}
    judged = dict.fromkeys(("completeness", "consistency", "accuracy", "timeliness", "validity"), whole)
    write_json(
        root / "reports" / "quality.json",
        {
            "overall": judged,
            "sources": {"digits": {**judged, "rows": len(y) + 2, "quarantined": 2}},
            "quarantine": {"rows": 2, "share": 2 / (len(y) + 2), "reasons": {"values: out of range": 2}},
        },
    )
    return splits


def linear_model(weights: np.ndarray, bias: np.ndarray, int8: bool) -> onnx.ModelProto:
    """x [B, 1, 8, 8] raw -> logits [B, 10]; with `int8` the weights are stored in eight bits per tensor."""
    nodes = [
        helper.make_node("Div", ["x", "scale"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(np.float32(16), "scale"), numpy_helper.from_array(bias, "bias")]
    if int8:
        step = np.float32(np.abs(weights).max() / 127)
        nodes.insert(0, helper.make_node("DequantizeLinear", ["weights_int8", "step"], ["weights"]))
        stored = np.round(weights / step).astype(np.int8)
        constants += [numpy_helper.from_array(stored, "weights_int8"), numpy_helper.from_array(step, "step")]
    else:
        constants.append(numpy_helper.from_array(weights, "weights"))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _write_target(root: Path, target: str, weights: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    folder = root / "models" / "exported" / target
    folder.mkdir(parents=True)
    file = folder / "model.onnx"
    file.write_bytes(linear_model(weights, bias, target.endswith("int8")).SerializeToString())
    (logits,) = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    reference = (x.reshape(len(x), -1) / 16) @ weights + bias
    predicted = logits.argmax(1)
    agreement = float(np.mean(predicted == reference.argmax(1)))
    io = {
        "runtime": "onnxruntime",
        "input": {"name": "x", "shape": [1, 8, 8], "dtype": "float32"},
        "output": {"name": "logits", "shape": [10], "dtype": "float32", "activation": "logits"},
        "recurrent": None,
    }
    export = {
        "target": target,
        "file": file.name,
        "sha256": sha256(file),
        "size_bytes": file.stat().st_size,
        "io": io,
        "quantization": None,
        "comparison": {
            "samples": len(x),
            "max_difference": float(np.abs(logits - reference).max()),
            "agreement": agreement,
        },
    }
    write_json(folder / "export.json", export)
    evaluated = root / "reports" / "evaluate" / target
    evaluated.mkdir(parents=True)
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    confidence = (exponents / exponents.sum(1, keepdims=True)).max(1)
    write_json(evaluated / "metrics.json", _metrics(target, export, y, predicted, confidence, agreement))
    columns = (GROUPS[: len(y)], y, predicted, confidence, reference.argmax(1))
    rows = [dict(zip(PREDICTIONS, row, strict=True)) for row in zip(*columns, strict=True)]
    _write_predictions(evaluated / "predictions.csv", rows)


def _write_predictions(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, PREDICTIONS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _metrics(
    target: str, export: dict[str, Any], actual: np.ndarray, predicted: np.ndarray, sure: np.ndarray, agreement: float
) -> dict[str, Any]:
    samples = len(actual)

    def estimate(value: float) -> dict[str, float]:
        half = 1.96 * float(np.sqrt(max(value * (1 - value), 0) / samples))
        return {"value": float(value), "low": max(value - half, 0.0), "high": min(value + half, 1.0)}

    def fixed(value: float) -> dict[str, float]:
        return {"value": value, "low": value * 0.98, "high": value * 1.04}

    scores = {
        average: precision_recall_fscore_support(actual, predicted, average=average, zero_division=0.0)[:3]
        for average in ("macro", "weighted")
    }
    by_class = precision_recall_fscore_support(actual, predicted, labels=range(10), zero_division=0.0)
    edges = [i / 10 for i in range(1, 10)]
    sure = sure.astype(np.float64)
    correct = predicted == actual
    bins = np.searchsorted(edges, sure)
    fifteenth = np.ceil(sure * 15)
    gaps = [abs(float(np.sum(correct[own] - sure[own]))) / samples for b in set(fifteenth) for own in [fifteenth == b]]
    latency = LATENCY_MS[target]
    return {
        "target": target,
        "model_sha256": export["sha256"],
        "size_bytes": export["size_bytes"],
        "classes": CLASSES,
        "samples": samples,
        "confidence": 0.95,
        "intervals": {"unit": "sample", "units": samples, "caveat": None},
        "accuracy": estimate(float(np.mean(correct))),
        **{
            f"{name}_{average}": estimate(float(value))
            for average, values in scores.items()
            for name, value in zip(("precision", "recall", "f1"), values, strict=True)
        },
        "calibration_error": estimate(float(sum(gaps))),
        "agreement": estimate(agreement),
        "latency_ms": {"p50": fixed(latency), "p95": fixed(latency * 1.3), "p99": fixed(latency * 2)},
        "memory_mb": fixed(MEMORY_MB),
        "per_class": {
            name: {
                "support": int(by_class[3][i]),
                **{field: float(by_class[k][i]) for k, field in enumerate(("precision", "recall", "f1"))},
            }
            for i, name in enumerate(CLASSES)
        },
        "by_group": {},
        "confusion": confusion_matrix(actual, predicted, labels=range(10)).tolist(),
        "prediction_ratios": {name: float(np.mean(predicted == i)) for i, name in enumerate(CLASSES)},
        "confidence_bins": {"edges": edges, "ratios": (np.bincount(bins, minlength=10) / samples).tolist()},
        "machine": {"cpu": "a fixed machine", "runtime": f"onnxruntime {onnxruntime.__version__}", "threads": 1},
    }


def _write_training(root: Path, quality: dict[str, float]) -> None:
    train = root / "reports" / "train"
    train.mkdir(parents=True)
    size = 350_000
    summary = {
        "network": "cnn", "parameters": size // 4, "size_bytes": size, "best_epoch": 7, "epochs": 12,
        "metric": "accuracy", "validation": quality, "test": quality,
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
