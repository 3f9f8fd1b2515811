"""Models that this pipeline did not build are served with a hand-written manifest.

(1) A convolutional network as MLPerf Tiny ships them: TFLite, int8 throughout, int8 input and output, pixels last.
(2) An ONNX file with a dynamic batch and probabilities as its output.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from edge_agent.core.config import Config
from edge_agent.inference.engine import load
from onnx import TensorProto, helper, numpy_helper

from tests.support.agent.http_server import serving
from tests.support.agent.serving import device
from tests.support.agent.third_party import write_bundle

pytestmark = pytest.mark.slow  # a model is converted

RNG = np.random.default_rng(11)
RAW = "application/octet-stream"


def packaged(
    config: Config,
    name: str,
    file: Path,
    io: dict[str, Any],
    described: dict[str, Any],
    golden: tuple[np.ndarray, np.ndarray],
    target: str,
) -> str:
    """Write a slot with only the model, golden samples and a manifest. Return the release."""
    release = f"{name}@1.0.0"
    described = {"name": name, "task": "image-classification", **described}
    batch = "single" if io["runtime"] == "litert" else "joinable"
    write_bundle(config.layout.bundle(release), file, io, described, golden, target, batch)
    return release


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quantise fully to integers with TensorFlow's converter and a representative data set of 8-bit pixels."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(3)
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Input((16, 16, 3)),
            tf.keras.layers.Rescaling(1 / 127.5, offset=-1),
            tf.keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            tf.keras.layers.DepthwiseConv2D(3, activation="relu"),
            tf.keras.layers.GlobalAveragePooling2D(),
            tf.keras.layers.Dense(4, kernel_initializer=tf.keras.initializers.RandomNormal(stddev=4.0)),
            tf.keras.layers.Softmax(),
        ]
    )
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([pixels(1)] for _ in range(50))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    path: Path = tmp_path_factory.mktemp("tiny") / "model.tflite"
    path.write_bytes(converter.convert())
    return path


def pixels(count: int) -> np.ndarray:
    return RNG.integers(0, 256, size=(count, 16, 16, 3)).astype(np.float32)


def by_hand(path: Path, x: np.ndarray) -> np.ndarray:
    """Run the plain interpreter, quantised and dequantised by the formulas of its specification."""
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (input_tensor,), (output_tensor,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (input_tensor["dtype"], output_tensor["dtype"]) == (np.int8, np.int8)
    scale, zero = input_tensor["quantization"]
    answers = []
    for sample in x:
        level = sample / np.float32(scale)
        rounded = np.sign(level) * np.floor(np.abs(level) + np.float32(0.5)) + zero
        interpreter.set_tensor(input_tensor["index"], np.clip(rounded, -128, 127).astype(np.int8)[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(output_tensor["index"])[0])
    scale, zero = output_tensor["quantization"]
    return (np.array(answers, np.int32) - zero).astype(np.float32) * np.float32(scale)


def test_an_int8_model_with_int8_input_and_output(tmp_path: Path, tiny: Path) -> None:
    config = device(tmp_path, capture={"enabled": True, "rate": 1.0})
    interpreter = Interpreter(str(tiny))
    input_name, output_name = interpreter.get_input_details()[0]["name"], interpreter.get_output_details()[0]["name"]
    io = {
        "runtime": "litert",
        "input": {"name": input_name, "shape": [16, 16, 3], "dtype": "int8"},
        "output": {"name": output_name, "shape": [4], "dtype": "int8", "activation": "probabilities"},
        "recurrent": None,
    }
    described = {
        "input": {
            "kind": "image",
            "dtype": "float32",
            "axes": ["height", "width", "channel"],
            "shape": [16, 16, 3],
            "channels": [{"name": name, "unit": "level"} for name in ("red", "green", "blue")],
            "rate_hz": None,
        },
        "output": {"meaning": "probability of each class", "classes": ["cat", "dog", "owl", "eel"]},
    }
    golden = pixels(5)
    release = packaged(config, "tiny", tiny, io, described, (golden, by_hand(tiny, golden)), "tflite-int8")
    x = pixels(40)

    with serving(config, load(config, release)) as agent:
        answer = agent.ask("POST", "/predict", x.tobytes(), RAW, Accept=RAW)
        texts = agent.ask("POST", "/predict", {"inputs": x[:3].astype(int).tolist()}).json["predictions"]
        agent.call(agent.health.probe())
        probe = agent.ask("GET", "/healthz").json
        exported = [json.loads(line) for line in agent.ask("GET", "/samples").content.splitlines()]
        metrics = agent.ask("GET", "/metrics").content.decode()

    expected = by_hand(tiny, x)
    assert len(set(expected.argmax(axis=1))) > 1
    np.testing.assert_array_equal(np.frombuffer(answer.content, "<f4").reshape(40, 4), expected)
    for text, row in zip(texts, expected, strict=False):
        assert list(text["probabilities"].values()) == row.tolist()
    assert probe["reason"] == "healthy"
    assert [sample["values"] for sample in exported[:2]] == [x[0].ravel().tolist(), x[1].ravel().tolist()]
    assert f'edge_agent_inferences_total{{release="{release}",target="tflite-int8"}} 43.0' in metrics
    assert "edge_agent_feature_bin_total{" not in metrics


def test_an_onnx_model_with_a_dynamic_batch(tmp_path: Path) -> None:
    config = device(tmp_path)
    weights = {"w": RNG.normal(size=(12, 3)).astype(np.float32), "b": RNG.normal(size=3).astype(np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["shares"], axis=1),
        ],
        "theirs",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 3, 4])],
        [helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    file = tmp_path / "theirs.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    session = onnxruntime.InferenceSession(str(file))
    io = {
        "runtime": "onnxruntime",
        "input": {"name": "image", "shape": [1, 3, 4], "dtype": "float32"},
        "output": {"name": "shares", "shape": [3], "dtype": "float32", "activation": "probabilities"},
        "recurrent": None,
    }
    described = {
        "input": {
            "kind": "image",
            "dtype": "float32",
            "axes": ["channel", "height", "width"],
            "shape": [1, 3, 4],
            "channels": [{"name": "grey", "unit": "level"}],
            "rate_hz": None,
        },
        "output": {"meaning": "probability of each class", "classes": ["a", "b", "c"]},
    }
    x = RNG.normal(size=(50, 1, 3, 4)).astype(np.float32)
    expected = session.run(None, {"image": x})[0]
    release = packaged(config, "theirs", file, io, described, (x[:4], expected[:4]), "onnx-fp32")

    with serving(config, load(config, release)) as agent:
        for part in (x, x[:1], x[:7]):
            answer = agent.ask("POST", "/predict", part.tobytes(), RAW, Accept=RAW)
            probabilities = np.frombuffer(answer.content, "<f4").reshape(-1, 3)
            np.testing.assert_allclose(probabilities, expected[: len(part)], atol=1e-6)
        agent.call(agent.health.probe())
        assert agent.ask("GET", "/healthz").json["reason"] == "healthy"
