"""Tiny real bundles, built in milliseconds and without a training library: linear classifiers written by hand.

`bundle(folder)` writes a model file for each target, runs the golden samples through the agent's own runtime, and packs
the same files as the pipeline's `package`. Its keywords build the bad bundles that an agent has to refuse.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from edge_agent.inference.runtime import open_model
from edge_agent.monitoring.drift import STATISTICS, bin_counts, features
from edge_agent.storage import manifest as bundle_manifest
from onnx import TensorProto, helper, numpy_helper

from stages.core.files import sha256, write_json
from stages.package.archive import pack
from tests.support.agent.model_files import description, tflite_int8_linear, tflite_without_graph

NAME = "pump"
SHAPE = (2, 16)
CLASSES = ("fine", "worn", "broken")
CHANNELS = ({"name": "vibration", "unit": "g"}, {"name": "current", "unit": "A"})
SAMPLES = 6
TOLERANCE = {"fp32": 1e-4, "int8": 0.05}
DIGEST = "0" * 64
# What a model file does that should not be installed.
GARBAGE, CRASHING, SLOW, GREEDY = "garbage", "crashing", "slow", "greedy"


@dataclass(frozen=True)
class Bundle:
    """An archive, and what it holds: golden inputs float32 [N, 2, 16], answers float32 [N, 3] by target."""

    archive: Path
    manifest: Mapping[str, Any]
    inputs: np.ndarray
    outputs: Mapping[str, np.ndarray]


def bundle(
    folder: Path,
    *,
    name: str = NAME,
    seed: int = 1,
    targets: Sequence[str] = ("onnx-fp32",),
    requirements: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    runtime_version: str | None = None,
    fault: str | None = None,
    wrong_golden: bool = False,
    padding: int = 0,
    variant: int = 0,
    change_reference: Callable[[dict[str, Any]], object] | None = None,
) -> Bundle:
    """Write `folder`/`name`.tar.zst, whose model has weights from `seed`.

    Args:
        folder: The folder of the archive.
        name: Name of the bundle.
        seed: Seed of the weights.
        targets: The targets to write.
        requirements: `requirements` of the manifest, or None.
        budget: `budget` of every target, or None.
        runtime_version: Least version of the runtime of every target, or None.
        fault: `garbage`: not a model file; `crashing` (TFLite): the process that loads it dies of SIGSEGV; `slow`: an
            inference takes tens of milliseconds; `greedy`: an inference takes 300 MB; None: a good model.
        wrong_golden: True reverses the stored outputs.
        padding: Size of an additional, incompressible file in bytes.
        change_reference: A function that changes the content of drift_reference.json before it is written.
        variant: Another number gives another file with the same predictions, like a model that was trained again.
    """
    root = folder / f".{name}-{seed}"
    root.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(int(np.prod(SHAPE)), len(CLASSES))).astype(np.float32) / 4 + np.float32(variant * 1e-6)
    inputs = np.random.default_rng(99).normal(size=(SAMPLES, *SHAPE)).astype(np.float32)
    (root / "golden").mkdir()
    np.save(root / "golden" / "inputs.npy", inputs, allow_pickle=False)
    described_targets, outputs = {}, {}
    for target in targets:
        file, io = _write_model(root / "targets" / target, target, weight)
        outputs[target] = _answers(file, io, inputs)
        if fault is not None:
            _spoil(file, weight, fault)
        stored = outputs[target][:, ::-1] if wrong_golden else outputs[target]
        np.save(root / "golden" / f"{target}.npy", stored, allow_pickle=False)
        described_targets[target] = _target(target, file.name, root, io, budget, runtime_version)
    reference = _drift_reference(inputs, outputs)
    if change_reference is not None:
        change_reference(reference)
    (root / "drift_reference.json").write_text(json.dumps(reference))  # also NaN, which write_json refuses
    (root / "model_card.md").write_text(f"# {name}\n")
    (root / "sbom.cdx.json").write_text("{}\n")
    if padding:
        (root / "padding.bin").write_bytes(rng.bytes(padding))
    manifest = _manifest(name, root, described_targets, requirements)
    write_json(root / bundle_manifest.MANIFEST, manifest)
    bundle_manifest.verify(root, bundle_manifest.read(root))
    archive = folder / f"{name}-{seed}.tar.zst"
    pack(root, archive)
    shutil.rmtree(root)
    return Bundle(archive, manifest, inputs, outputs)


def _write_model(folder: Path, target: str, weight: np.ndarray) -> tuple[Path, dict[str, Any]]:
    """logits = flatten(x) @ weight, as the target's kind of file; it, and how the runtime feeds it."""
    folder.mkdir(parents=True)
    if not target.startswith("tflite"):
        return _onnx(folder / "model.onnx", weight), description("onnxruntime", list(SHAPE), len(CLASSES))
    file = tflite_int8_linear(folder / "model.tflite", weight, (0.03, 0), (0.1, 0), shape=SHAPE)
    io = description("litert", list(SHAPE), len(CLASSES))
    for part in ("input", "output"):
        io[part]["dtype"] = "int8"
    return file, io


def _answers(file: Path, io: Mapping[str, Any], inputs: np.ndarray) -> np.ndarray:
    """Probabilities, one sample at a time, as a device asks for them."""
    model = open_model(file, io)
    return np.concatenate([model.predict(inputs[i : i + 1]) for i in range(len(inputs))])


def _spoil(file: Path, weight: np.ndarray, fault: str) -> None:
    if fault == GARBAGE:
        file.write_bytes(bytes(range(256)) * 4)
    elif fault == CRASHING:
        assert file.suffix == ".tflite", "only a TFLite file is known to do that"
        tflite_without_graph(file)
    else:
        assert file.suffix == ".onnx", f"{fault} models are ONNX ones"
        _onnx(file, weight, {SLOW: 2000, GREEDY: 5000}[fault], multiplied=fault == SLOW)


def _onnx(path: Path, weight: np.ndarray, side: int = 0, *, multiplied: bool = False) -> Path:
    """y = flatten(x) @ weight; with a side, plus zero times the largest value of a matrix of that side, or of its
    product with another. The matrix hangs on x: else it would be folded away when the file is loaded.
    """
    flat = helper.make_node("Flatten", ["x"], ["flat"])
    constants = {"w": weight}
    if not side:
        nodes = [flat, helper.make_node("MatMul", ["flat", "w"], ["y"])]
    else:
        one = numpy_helper.from_array(np.ones(1, np.float32))
        constants |= {"side": np.array([side, side], np.int64), "axes": np.array([0, 1], np.int64)}
        constants["zero"] = np.zeros((), np.float32)
        nodes = [
            flat,
            helper.make_node("MatMul", ["flat", "w"], ["plain"]),
            helper.make_node("ConstantOfShape", ["side"], ["ones"], value=one),
            helper.make_node("ReduceSum", ["flat", "axes"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["ones", "sum"], ["matrix"]),
            helper.make_node("MatMul", ["matrix", "ones"], ["large"])
            if multiplied
            else helper.make_node("Neg", ["matrix"], ["large"]),
            helper.make_node("ReduceMax", ["large", "axes"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "zero"], ["nothing"]),
            helper.make_node("Add", ["plain", "nothing"], ["y"]),
        ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPE])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weight.shape[1]])]
    initializers = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _target(
    target: str, file: str, root: Path, io: Any, budget: Mapping[str, Any] | None, runtime_version: str | None
) -> dict[str, Any]:
    path = f"targets/{target}/{file}"
    precision = target.rpartition("-")[2]
    optional: dict[str, Any] = {"budget": dict(budget)} if budget is not None else {}
    if runtime_version is not None:
        optional["runtime_version"] = runtime_version
    return {
        "file": path,
        "sha256": sha256(root / path),
        "size_bytes": (root / path).stat().st_size,
        "precision": precision,
        "batch": "single" if io["runtime"] == "litert" else "joinable",
        "io": io,
        "metrics": {"samples": 60, "confidence": 0.95, "estimates": {}},
        "golden": {
            "inputs": "golden/inputs.npy",
            "outputs": f"golden/{target}.npy",
            "samples": SAMPLES,
            "tolerance": TOLERANCE[precision],
        },
        **optional,
    }


def _drift_reference(inputs: np.ndarray, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return a drift reference as `prepare` and `package` write it, with four bins."""
    values = features(inputs)
    described = []
    for column in range(values.shape[1]):
        channel, statistic = divmod(column, len(STATISTICS))
        edges = [float(f"{edge:.7g}") for edge in np.quantile(values[:, column], (0.25, 0.5, 0.75))]
        described.append(
            {
                "name": f"{CHANNELS[channel]['name']}.{STATISTICS[statistic]}",
                "channel": channel,
                "statistic": STATISTICS[statistic],
                "edges": edges,
                "ratios": (bin_counts(values[:, column], edges) / len(inputs)).tolist(),
            }
        )
    certain = [0.5, 0.75, 0.9]
    return {
        "schema_version": 1,
        "samples": len(inputs),
        "features": described,
        "labels": dict.fromkeys(CLASSES, 1 / len(CLASSES)),
        "targets": {
            target: {
                "prediction_ratios": dict(
                    zip(CLASSES, np.bincount(y.argmax(axis=1), minlength=len(CLASSES)) / len(y), strict=True)
                ),
                "confidence_bins": {
                    "edges": certain,
                    "ratios": (bin_counts(y.max(axis=1), certain) / len(y)).tolist(),
                },
            }
            for target, y in outputs.items()
        },
    }


def _manifest(name: str, root: Path, targets: Any, requirements: Mapping[str, Any] | None) -> dict[str, Any]:
    optional = {"requirements": dict(requirements)} if requirements is not None else {}
    return {
        "schema_version": bundle_manifest.SCHEMA_VERSION,
        "agent_version": bundle_manifest.AGENT_VERSION,
        "name": name,
        "task": "series-classification",
        "description": "Made by hand for tests.",
        "licence": "Apache-2.0",
        "input": {
            "kind": "series",
            "dtype": "float32",
            "axes": ["channel", "time"],
            "shape": list(SHAPE),
            "channels": list(CHANNELS),
            "rate_hz": 100.0,
        },
        "output": {"meaning": "probability of each class", "classes": list(CLASSES)},
        "data": {"snapshot": "2026-01-01T00:00:00Z", "sources": {"made.csv": DIGEST}},
        "inputs": {},
        "parameters": {},
        "targets": targets,
        "files": {
            path.relative_to(root).as_posix(): {"sha256": sha256(path), "size_bytes": path.stat().st_size}
            for path in sorted(root.rglob("*"))
            if path.is_file()
        },
        "libraries": {"numpy": np.__version__},
        **optional,
    }
