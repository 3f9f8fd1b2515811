"""Write a target of the built pipeline: its ONNX file and the evaluation of that file's predictions."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from stages.core.files import sha256, write_json

CLASSES = [str(digit) for digit in range(10)]
GROUPS = [f"s{i}" for i in range(360)]  # of the test samples: each sample is a separate group
PREDICTIONS = ["group", "actual", "predicted", "confidence", "reference"]
LATENCY_MS = {"onnx-fp32": 0.012, "onnx-int8": 0.019}
MEMORY_MB = 31.5


def linear_model(weights: np.ndarray, bias: np.ndarray, int8: bool) -> onnx.ModelProto:
    """Return a model from raw x [B, 1, 8, 8] to logits [B, 10]; with `int8` the weights are quantised per tensor."""
    nodes = [
        helper.make_node("Div", ["x", "scale"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(np.array(16, np.float32), "scale"), numpy_helper.from_array(bias, "bias")]
    if int8:
        step = np.array(np.abs(weights).max() / 127, np.float32)
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


def write_target(root: Path, target: str, weights: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
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
    write_predictions(evaluated / "predictions.csv", rows)


def write_predictions(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, PREDICTIONS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _metrics(
    target: str,
    export: dict[str, Any],
    actual: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    agreement: float,
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
    confidence = confidence.astype(np.float64)
    correct = predicted == actual
    bins = np.searchsorted(edges, confidence)
    fifteenth = np.ceil(confidence * 15)
    gaps = [abs(float(np.sum((correct - confidence)[fifteenth == b]))) / samples for b in set(fifteenth)]
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
