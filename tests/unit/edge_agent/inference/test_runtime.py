"""The devices' runtime, on files with known outputs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_agent.inference import runtime
from edge_agent.inference.backends import dequantise, quantise
from edge_agent.inference.model import InputError, ModelError, OutputError, softmax
from edge_agent.inference.runtime import open_model
from onnx import TensorProto

from tests.support.agent.model_files import (
    description,
    onnx_identity,
    onnx_linear,
    onnx_step,
    tflite_int8_linear,
)

WEIGHT = np.array([[1.0, -1.0, 0.0], [0.5, 0.0, 2.0]])
X = np.array([[1.0, 2.0], [-3.0, 0.25], [0.0, 0.0], [4.0, -4.0], [0.5, 0.5]], np.float32)
IO = description("onnxruntime", [2], 3)


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return onnx_linear(tmp_path / "model.onnx", WEIGHT)


def test_logits_are_what_the_file_computes_and_probabilities_their_softmax(linear: Path) -> None:
    model = open_model(linear, IO)

    logits, probabilities = model.logits(X), model.predict(X)

    assert logits == pytest.approx(X @ WEIGHT, abs=1e-6)
    assert probabilities == pytest.approx(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), abs=1e-6)
    assert probabilities.dtype == logits.dtype == np.float32


def test_a_file_with_a_fixed_batch_is_called_sample_by_sample(tmp_path: Path) -> None:
    fixed = onnx_linear(tmp_path / "model.onnx", WEIGHT, batch=1)

    assert open_model(fixed, IO).logits(X) == pytest.approx(X @ WEIGHT, abs=1e-6)


def test_probabilities_of_a_file_are_returned_unchanged(tmp_path: Path) -> None:
    file = onnx_linear(tmp_path / "model.onnx", WEIGHT, operator="Softmax")
    io = description("onnxruntime", [2], 3)
    io["output"]["activation"] = "probabilities"

    model = open_model(file, io)

    assert model.predict(X) == pytest.approx(model.logits(X))
    assert model.predict(X).sum(axis=1) == pytest.approx(np.ones(5), abs=1e-6)


def test_softmax_does_not_overflow() -> None:
    assert softmax(np.array([[1e4, 0.0], [-1e4, -1e4]], np.float32)).tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_no_samples_give_an_empty_result(linear: Path) -> None:
    assert open_model(linear, IO).predict(np.empty((0, 2), np.float32)).shape == (0, 3)


def test_recurrent_file_is_stepped_over_whole_frames_from_zero_states(tmp_path: Path) -> None:
    """Given frames of 4 samples every 3 of 12, three frames fit, and the remaining samples are not read."""
    file = onnx_step(tmp_path / "step.onnx", channels=2, frame=4)
    recurrent = {"frame": 4, "hop": 3, "states": [{"input": "state", "output": "next", "shape": [2]}]}
    model = open_model(file, description("onnxruntime", [2, 12], 2, recurrent=recurrent))
    x = np.random.default_rng(0).normal(size=(3, 2, 12)).astype(np.float32)

    sums = [x[:, :, start : start + 4].sum(axis=2) for start in (0, 3, 6)]
    expected = (sums[0] * 0.5 + sums[1]) * 0.5 + sums[2]

    assert model.logits(x) == pytest.approx(expected, abs=1e-5)
    assert model.logits(x) == pytest.approx(expected, abs=1e-5), "states of one call do not reach the next"
    changed = x.copy()
    changed[:, :, 10:] = 9.0
    assert model.logits(changed) == pytest.approx(expected, abs=1e-5)


def test_int8_file_of_a_third_party_is_used_through_its_own_scales(tmp_path: Path) -> None:
    file = tflite_int8_linear(tmp_path / "model.tflite", WEIGHT, (0.05, -20), (0.1, 7))
    io = description("litert", [2], 3)
    io["input"]["dtype"] = io["output"]["dtype"] = "int8"

    computed = open_model(file, io).logits(X)

    # A step of the input times the weights, a step of the output, and the weights' own rounding.
    assert computed == pytest.approx(X @ WEIGHT, abs=0.05 / 2 * 2.5 + 0.1 / 2 + 0.05)
    assert computed / 0.1 == pytest.approx(np.round(computed / 0.1), abs=1e-4), "whole steps of the output's scale"


def test_values_beyond_an_int8_input_are_clipped_not_wrapped(tmp_path: Path) -> None:
    file = tflite_int8_linear(tmp_path / "model.tflite", WEIGHT, (0.01, 0), (0.1, 0))
    io = description("litert", [2], 3)
    io["input"]["dtype"] = io["output"]["dtype"] = "int8"

    computed = open_model(file, io).logits(np.array([[100.0, 0.0]], np.float32))

    assert computed[0] == pytest.approx(np.array([1.27, -1.27, 0.0]), abs=0.06)


@pytest.mark.parametrize(
    ("dtype", "scale", "values", "expected"),
    [
        (np.int8, (0.5, 0), [0.25, -0.25, 0.24, 0.75], [1, -1, 0, 2]),  # halves round away from zero
        (np.int8, (1.0, -128), [0.0, 255.0, 256.0, -1.0], [-128, 127, 127, -128]),
        (np.uint8, (2.0, 10), [0.0, -20.0, -21.0, 490.0], [10, 0, 0, 255]),
        (np.int16, (0.001, 0), [1.0, -40.0, 40.0, 0.0], [1000, -32768, 32767, 0]),
    ],
)
def test_quantise_is_the_formula_of_the_specification(
    dtype: type, scale: tuple[float, int], values: list[float], expected: list[int]
) -> None:
    tensor = {"name": "x", "dtype": dtype, "quantization": scale}

    levels = quantise(np.array(values, np.float32), tensor)

    assert levels.dtype == dtype
    assert levels.tolist() == expected
    real = dequantise(levels, tensor)
    assert real.tolist() == pytest.approx([(level - scale[1]) * scale[0] for level in expected])


def test_an_integer_tensor_without_a_scale_is_refused() -> None:
    tensor = {"name": "x", "dtype": np.int8, "quantization": (0.0, 0)}

    for convert in (quantise, dequantise):
        with pytest.raises(ModelError, match="x: found int8 without a scale"):
            convert(np.zeros(1, np.int8), tensor)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X.astype(np.float64), "found float64, expected a numpy array of float32"),
        (X.tolist(), "found list, expected a numpy array of float32"),
        (X[0], r"found shape \(2,\), expected \(samples, 2\)"),
        (X[:, :1], r"found shape \(5, 1\), expected \(samples, 2\)"),
        (np.array([[0, 0], [0, np.nan]], np.float32), "found NaN or infinity in sample 1"),
        (np.array([[np.inf, 0], [0, 0]], np.float32), "found NaN or infinity in sample 0"),
    ],
)
def test_wrong_input_is_refused_with_what_was_expected(linear: Path, x: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_model(linear, IO).predict(x)


def test_an_output_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    file = onnx_linear(tmp_path / "model.onnx", WEIGHT, operator="Log")

    with pytest.raises(OutputError, match="output of sample 0: found NaN or infinity"):
        open_model(file, IO).predict(X)


def test_an_output_of_the_wrong_shape_is_refused(linear: Path) -> None:
    with pytest.raises(OutputError, match=r"found shape \(5, 3\), expected \(5, 4\)"):
        open_model(linear, description("onnxruntime", [2], 4)).predict(X)


@pytest.mark.parametrize("runtime_name", ["onnxruntime", "litert"])
def test_a_missing_or_damaged_file_is_refused(tmp_path: Path, runtime_name: str) -> None:
    io = description(runtime_name, [2], 3)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"not a model" * 100)

    with pytest.raises(ModelError, match="there is no such file"):
        open_model(tmp_path / "missing", io)
    with pytest.raises(ModelError, match="damaged: not loadable by"):
        open_model(damaged, io)


def test_a_truncated_file_is_refused(linear: Path, tmp_path: Path) -> None:
    int8 = tflite_int8_linear(tmp_path / "model.tflite", WEIGHT, (0.05, 0), (0.1, 0))
    for file, io in ((linear, IO), (int8, description("litert", [2], 3))):
        file.write_bytes(file.read_bytes()[:-40])

        with pytest.raises(ModelError):
            open_model(file, io)


def test_a_file_that_is_not_what_its_description_says_is_refused(linear: Path, tmp_path: Path) -> None:
    other = {"name": "z", "shape": [2], "dtype": "float32"}
    step = onnx_step(tmp_path / "step.onnx", channels=2, frame=4)
    int8 = tflite_int8_linear(tmp_path / "model.tflite", WEIGHT, (0.05, 0), (0.1, 0))
    long = {"frame": 20, "hop": 1, "states": []}

    with pytest.raises(ModelError, match="inputs: found x, expected z"):
        open_model(linear, description("onnxruntime", [2], 3, input=other))
    with pytest.raises(ModelError, match="inputs: found x, state, expected x"):
        open_model(step, description("onnxruntime", [2, 12], 2))
    with pytest.raises(ModelError, match="found dtype int8, expected float32"):
        open_model(int8, description("litert", [2], 3))
    with pytest.raises(ModelError, match="a frame of 20 is longer"):
        open_model(linear, description("onnxruntime", [2, 12], 2, recurrent=long))
    with pytest.raises(ModelError, match="found runtime 'tensorrt', expected one of onnxruntime, litert"):
        open_model(linear, description("tensorrt", [2], 3))


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        ([], TensorProto.FLOAT, "x: found a scalar, expected a tensor whose first axis is the batch"),
        (["n", 2], TensorProto.FLOAT16, r"x: found tensor\(float16\), expected tensor\(float\); insert a Cast"),
        (["n", 2], TensorProto.DOUBLE, r"x: found tensor\(double\), expected tensor\(float\); insert a Cast"),
        (["n", 2], TensorProto.INT8, r"x: found tensor\(int8\), expected tensor\(float\); ONNX stores no scale"),
        (["n", 2], TensorProto.STRING, r"x: found tensor\(string\), .*; the agent serves only models .* numbers"),
    ],
)
def test_an_input_that_the_agent_cannot_pass_is_described(tmp_path: Path, shape: Any, kind: int, words: str) -> None:
    file = onnx_identity(tmp_path / "model.onnx", shape, kind)

    with pytest.raises(ModelError, match=words):
        open_model(file, description("onnxruntime", [2], 2))


def test_importing_the_runtime_loads_numpy_and_nothing_heavier() -> None:
    program = (
        "import sys, edge_agent.inference.runtime; "
        "print([m for m in ('torch', 'tensorflow', 'onnxruntime', 'ai_edge_litert', 'stages') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


# Another thread writes to stderr while the first model is loaded; `count` is the number of its lines.
TALKS_WHILE_LOADING = """
import json, os, sys, threading
from pathlib import Path
from edge_agent.inference.runtime import open_model

started, loaded = threading.Event(), threading.Event()
count = 0

def talk():
    global count
    while count < 10 or not loaded.is_set():
        os.write(2, f"line {count}\\n".encode())
        count += 1
        started.set()

thread = threading.Thread(target=talk)
thread.start()
started.wait()
open_model(Path(sys.argv[1]), json.loads(sys.argv[2]))
loaded.set()
thread.join()
print(count)
"""


def test_loading_a_tflite_file_is_silent_and_drops_no_other_output(tmp_path: Path) -> None:
    file = tflite_int8_linear(tmp_path / "model.tflite", WEIGHT, (0.05, 0), (0.1, 0))
    io = description("litert", [2], 3)
    io["input"]["dtype"] = io["output"]["dtype"] = "int8"

    command = [sys.executable, "-c", TALKS_WHILE_LOADING, str(file), json.dumps(io)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    # Captured lines come after those that were written just as capturing ended.
    numbers = sorted(int(line.removeprefix("line ")) for line in done.stderr.splitlines())
    assert numbers == list(range(int(done.stdout)))


def test_a_tflite_file_loads_without_stderr(tmp_path: Path) -> None:
    file = tflite_int8_linear(tmp_path / "model.tflite", WEIGHT, (0.05, 0), (0.1, 0))
    io = description("litert", [2], 3)
    io["input"]["dtype"] = io["output"]["dtype"] = "int8"
    program = "import json, sys; from pathlib import Path; from edge_agent.inference.runtime import open_model; "
    program += "print(open_model(Path(sys.argv[1]), json.loads(sys.argv[2])).classes)"

    done = subprocess.run(
        ["sh", "-c", '"$@" 2>&-', "sh", sys.executable, "-c", program, str(file), json.dumps(io)],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip

    assert done.stdout == "3\n"


@pytest.mark.parametrize("module", ["backends", "model", "runtime"])
def test_the_runtime_is_python_3_10(module: str) -> None:
    source = Path(runtime.__file__).with_name(f"{module}.py").read_text(encoding="utf-8")

    ast.parse(source, feature_version=(3, 10))
