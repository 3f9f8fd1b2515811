"""ONNX files whose results may depend on the samples that are computed in the same run, with the right results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

SHAPE, CLASSES, HIDDEN = (3, 4), 3, 16
IO = {
    "runtime": "onnxruntime",
    "input": {"name": "x", "shape": list(SHAPE), "dtype": "float32"},
    "output": {"name": "y", "shape": [CLASSES], "dtype": "float32", "activation": "probabilities"},
    "recurrent": None,
}
SIZE = int(np.prod(SHAPE))
RNG = np.random.default_rng(5)
FIRST = RNG.normal(size=(SIZE, HIDDEN)).astype(np.float32)
SECOND = RNG.normal(size=(HIDDEN, CLASSES)).astype(np.float32)
LINEAR = RNG.normal(size=(SIZE, CLASSES)).astype(np.float32)
BIAS = RNG.normal(size=CLASSES).astype(np.float32)

FLATTEN = helper.make_node("Flatten", ["x"], ["flat"])
GEMM = helper.make_node("Gemm", ["flat", "w", "b"], ["scores"])
SOFTMAX = helper.make_node("Softmax", ["scores"], ["y"], axis=1)


def plain(path: Path) -> Path:
    """A linear classifier: samples do not affect each other."""
    return _save(path, [FLATTEN, GEMM, SOFTMAX], {"w": LINEAR, "b": BIAS})


def without_softmax(path: Path) -> Path:
    """The same classifier, whose outputs are logits."""
    scores = helper.make_node("Gemm", ["flat", "w", "b"], ["y"])
    return _save(path, [FLATTEN, scores], {"w": LINEAR, "b": BIAS})


def network(path: Path) -> Path:
    """A network with one hidden layer, in float32: samples do not affect each other."""
    nodes = [
        FLATTEN,
        helper.make_node("MatMul", ["flat", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["scores"]),
        SOFTMAX,
    ]
    return _save(path, nodes, {"w1": FIRST, "w2": SECOND})


def dynamic_int8(path: Path) -> Path:
    """Quantise `network` with a single scale for all activations of a run."""
    quantize_dynamic(network(path.with_suffix(".float.onnx")), path, weight_type=QuantType.QInt8)
    return path


def fixed_reshape(path: Path) -> Path:
    """Declare any number of samples, but reshape to one sample: a run of two samples fails."""
    nodes = [helper.make_node("Reshape", ["x", "size"], ["flat"]), GEMM, SOFTMAX]
    return _save(path, nodes, {"w": LINEAR, "b": BIAS, "size": np.array([1, SIZE], np.int64)})


def at_most(path: Path, count: int) -> Path:
    """A linear classifier whose run fails with more than `count` samples: it adds rows of a constant to them."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Shape", ["f"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Range", ["zero", "n", "one"], ["rows"]),
        helper.make_node("Gather", ["table", "rows"], ["zeros"]),
        helper.make_node("Add", ["f", "zeros"], ["flat"]),
        GEMM,
        SOFTMAX,
    ]
    constants = {"zero": np.array(0, np.int64), "one": np.array(1, np.int64)}
    return _save(path, nodes, {"w": LINEAR, "b": BIAS, "table": np.zeros((count, SIZE), np.float32), **constants})


def batch_statistics(path: Path) -> Path:
    """Normalise with mean and variance of the run, like a network that was exported in training mode."""
    norm = helper.make_node(
        "BatchNormalization",
        ["s", "scale", "b", "mean", "variance"],
        ["scores", "m", "v"],
        training_mode=1,
        epsilon=1.0,
    )
    gemm = helper.make_node("Gemm", ["flat", "w", "b"], ["s"])
    ones, zeros = np.ones(CLASSES, np.float32), np.zeros(CLASSES, np.float32)
    constants = {"w": LINEAR, "b": BIAS, "scale": ones, "mean": zeros, "variance": ones}
    return _save(path, [FLATTEN, gemm, norm, SOFTMAX], constants)


# Each file, and whether its samples may be joined into one run.
FILES: dict[str, tuple[Callable[[Path], Path], bool]] = {
    "plain": (plain, True),
    "network": (network, True),
    "dynamic-int8": (dynamic_int8, False),
    "fixed-reshape": (fixed_reshape, False),
    "batch-statistics": (batch_statistics, False),
}


def _save(path: Path, nodes: list[Any], constants: dict[str, np.ndarray]) -> Path:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "by_hand", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def samples(count: int, seed: int = 1) -> np.ndarray:
    """Return samples of a usual size, float32 [count, 3, 4]."""
    return (np.random.default_rng(seed).normal(size=(count, *SHAPE)) * 0.3).astype(np.float32)


def alone(path: Path, x: np.ndarray) -> np.ndarray:
    """Return the probabilities that plain ONNX Runtime computes for one sample at a time [N, classes]."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": x[i : i + 1]})[0] for i in range(len(x))])
