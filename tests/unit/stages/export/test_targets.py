"""Test the converters on trained networks: every file format and method, compared with torch."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from edge_agent.inference.runtime import open_model

from stages.core.dataset import Split
from stages.core.errors import ConversionError
from stages.export.conversion import convert
from stages.export.converters.protocol import CONVERTERS, FLOAT, METHODS, Request
from stages.export.stage import Measured, measure
from stages.networks import Network
from tests.support.stages.export import CASES, answers, write_task

pytestmark = pytest.mark.slow

LIMIT_S = 300
# Run in every test run: each kind of network and each converter once. The shipped tasks add series and audio.
REPRESENTATIVE = ("cnn-2d", "gru", "transformer", "image")


def cases(names: Iterable[str]) -> list[object]:
    return [name if name in REPRESENTATIVE else pytest.param(name, marks=pytest.mark.exhaustive) for name in names]


@dataclass(frozen=True)
class Converted:
    """A network in one file format, by method."""

    root: Path
    case: str
    format: str
    network: Network
    forms: dict[str, Measured]


@pytest.fixture(scope="module", params=cases(CASES))
def task(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path, Network]]:
    root = tmp_path_factory.mktemp(request.param)
    network = write_task(root, CASES[request.param])
    np.savez(root / "samples.npz", calibration=Split.open(root / "data/prepared", "train").samples(slice(0, 128)))
    yield request.param, root, network


@pytest.fixture(scope="module", params=["onnxruntime", "litert"])
def converted(request: pytest.FixtureRequest, task: tuple[str, Path, Network]) -> Converted:
    case, root, network = task
    command = next(iter(CONVERTERS[request.param].values()))
    forms = run_converter(command, root, request.param)
    return Converted(root, case, request.param, network, forms)


def run_converter(command: object, root: Path, name: str, methods: tuple[str, ...] = METHODS) -> dict[str, Measured]:
    output = root / name
    output.mkdir()
    request = Request(root / "models/compressed/model.pt", root / "samples.npz", output, methods)
    candidates = convert(command, request, LIMIT_S, root / f"{name}.log")  # type: ignore[arg-type]
    validation = Split.open(root / "data/prepared", "validation")
    with np.load(root / "models/reference.npz") as reference:
        measured, failures = measure(output, candidates, validation.samples(slice(None)), reference["validation"])
    assert not failures
    return {form.candidate.method: form for form in measured}


def test_the_float_file_agrees_with_torch(converted: Converted) -> None:
    assert converted.forms[FLOAT].comparison.max_difference <= 1e-4
    assert converted.forms[FLOAT].comparison.agreement == 1.0


def test_every_method_gives_a_file_and_the_best_predicts_the_same_classes(converted: Converted) -> None:
    assert sorted(converted.forms) == sorted(METHODS)
    assert max(form.comparison.agreement for name, form in converted.forms.items() if name != FLOAT) >= 0.98
    assert converted.forms["min-max"].comparison.agreement >= 0.95


def test_weights_are_int8_and_the_preprocessing_is_not(converted: Converted) -> None:
    """All kernels and matrices of the body are stored as int8, those of the preprocessing as float."""
    parameters = list(converted.network.body.parameters())
    body = sum(p.numel() for p in parameters if p.dim() > 1) - position(converted.network)
    vectors = sum(p.numel() for p in parameters if p.dim() == 1)
    fixed = sum(b.numel() for b in converted.network.preprocess.buffers() if b.numel() > 100)
    for method in ("min-max", "dynamic"):
        elements = stored(converted.forms[method].file)
        assert elements["int8"] >= body
        # In float: the preprocessing, biases and norms, the position, and scales per channel and per operation.
        assert fixed <= elements["float32"] <= fixed + 3 * vectors + position(converted.network) + 300


def position(network: Network) -> int:
    """Return the number of elements of a transformer's position, which is only added and may stay in float."""
    return sum(p.numel() for name, p in network.body.named_parameters() if name == "position")


def stored(file: Path) -> dict[str, int]:
    """Count the elements of constants by type."""
    if file.suffix == ".onnx":
        kinds = {onnx.TensorProto.INT8: "int8", onnx.TensorProto.FLOAT: "float32"}
        pairs = [(kinds.get(w.data_type, "other"), int(np.prod(w.dims))) for w in onnx.load(file).graph.initializer]
    else:
        kinds = {schema.TensorType.INT8: "int8", schema.TensorType.FLOAT32: "float32"}
        model = flatbuffer_utils.read_model(str(file))
        tensors = {tensor.buffer: tensor for graph in model.subgraphs for tensor in graph.tensors}
        pairs = [
            (kinds.get(tensor.type, "other"), int(np.prod(tensor.shape)))
            for buffer, tensor in tensors.items()
            if model.buffers[buffer].data is not None
        ]
    return {kind: sum(count for name, count in pairs if name == kind) for kind in ("int8", "float32", "other")}


def test_a_static_int8_file_has_float_inputs_so_that_small_channels_survive(converted: Converted) -> None:
    file = converted.forms["min-max"].file
    if converted.format == "litert":
        graph = flatbuffer_utils.read_model(str(file)).subgraphs[0]
        assert {graph.tensors[i].type for i in graph.inputs} == {schema.TensorType.FLOAT32}
        if len(converted.network.spec.channels) == 1:
            return  # a single channel has one scale, and a converter may move it into the weights
        readers = [op for op in graph.operators if graph.inputs[0] in op.inputs]
        assert all(graph.tensors[i].type == schema.TensorType.FLOAT32 for op in readers for i in op.outputs)
    else:
        nodes = onnx.load(file).graph.node
        assert not [node for node in nodes if node.op_type == "QuantizeLinear" and node.input[0] == "input"]


def test_constants_of_a_tflite_file_are_aligned_to_16_bytes(converted: Converted) -> None:
    if converted.format != "litert":
        return
    for form in converted.forms.values():
        model = schema.Model.GetRootAs(form.file.read_bytes(), 0)
        tables = [model.Buffers(i)._tab for i in range(model.BuffersLength())]
        starts = [table.Vector(offset) for table in tables if (offset := table.Offset(4))]
        assert starts
        assert not [start for start in starts if start % 16]


def test_files_do_not_contain_paths_or_stack_traces(converted: Converted) -> None:
    for form in converted.forms.values():
        content = form.file.read_bytes()
        assert not [word for word in (b"site-packages", b"/stages", b"stack_trace", b".py") if word in content]


def test_an_onnx_file_accepts_any_batch_size(converted: Converted) -> None:
    x = Split.open(converted.root / "data/prepared", "test").samples(slice(0, 7))
    form = converted.forms[FLOAT]

    logits = open_model(form.file, form.candidate.io).logits(x)

    assert logits == pytest.approx(answers(converted.network, x), abs=1e-4)


def test_a_recurrent_file_holds_one_step(converted: Converted) -> None:
    recurrent = converted.forms[FLOAT].candidate.io["recurrent"]
    if converted.network.kind != "rnn":
        assert recurrent is None
        return
    weights = sum(p.numel() for p in converted.network.parameters()) * 4
    assert converted.forms[FLOAT].file.stat().st_size < weights + 25_000
    # gru: output and highest output; lstm: output and cell of two layers
    states = {"gru": 2, "lstm": 4}[converted.case]
    assert len(recurrent["states"]) == states


@pytest.mark.parametrize("format", ["onnxruntime", pytest.param("litert", marks=pytest.mark.exhaustive)])
def test_the_same_network_gives_the_same_bytes(tmp_path: Path, format: str) -> None:
    write_task(tmp_path, replace(CASES["cnn-1d"], epochs=1))
    np.savez(
        tmp_path / "samples.npz", calibration=Split.open(tmp_path / "data/prepared", "train").samples(slice(0, 32))
    )
    command = next(iter(CONVERTERS[format].values()))

    first, second = (run_converter(command, tmp_path, f"{format}-{i}") for i in (1, 2))

    for method in METHODS:
        assert first[method].file.read_bytes() == second[method].file.read_bytes(), method


KERAS_CASES = {
    "image": CASES["cnn-2d"],
    "series in quantile bins": replace(CASES["cnn-1d"], changes={**CASES["cnn-1d"].changes, "quantile_bins": 4}),
    "log-mel": CASES["cnn-log-mel"],
    "mfcc": replace(CASES["cnn-log-mel"], task="mfcc"),
}


@pytest.mark.parametrize("case", cases(KERAS_CASES))
def test_tensorflows_converter_is_a_fallback_for_cnns(tmp_path: Path, case: str) -> None:
    write_task(tmp_path, KERAS_CASES[case])
    np.savez(
        tmp_path / "samples.npz", calibration=Split.open(tmp_path / "data/prepared", "train").samples(slice(0, 64))
    )

    forms = run_converter(CONVERTERS["litert"]["keras"], tmp_path, "keras", (FLOAT, "min-max"))

    assert forms[FLOAT].comparison.max_difference <= 1e-4
    assert forms["min-max"].comparison.agreement >= 0.95
    graph = flatbuffer_utils.read_model(str(forms["min-max"].file)).subgraphs[0]
    assert graph.tensors[graph.inputs[0]].type == schema.TensorType.FLOAT32


def test_tensorflows_converter_refuses_networks_other_than_cnns(tmp_path: Path) -> None:
    write_task(tmp_path, replace(CASES["gru"], epochs=0))
    np.savez(tmp_path / "samples.npz", calibration=np.zeros((1, 2, 32), np.float32))

    with pytest.raises(ConversionError, match=r"exit code 1\n(?s:.*)Keras converter: found a rnn\n *expected: a cnn"):
        run_converter(CONVERTERS["litert"]["keras"], tmp_path, "keras", (FLOAT,))


def test_the_stage_writes_one_file_for_each_target_and_its_description(tmp_path: Path) -> None:
    write_task(tmp_path, CASES["cnn-2d"])
    for target, file in (("onnx-int8", "model.onnx"), ("tflite-fp32", "model.tflite")):
        result = subprocess.run(
            [sys.executable, "-m", "stages.export", "--target", target],
            cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        folder = tmp_path / "models/exported" / target
        written = json.loads((folder / "export.json").read_text())

        assert sorted(path.name for path in folder.iterdir()) == ["export.json", file]
        assert written["sha256"] == hashlib.sha256((folder / file).read_bytes()).hexdigest()
        assert written["size_bytes"] == (folder / file).stat().st_size
        assert written["comparison"]["samples"] == 250
        if target == "onnx-int8":
            assert written["quantization"]["calibration"] in METHODS
            assert [c["method"] for c in written["quantization"]["candidates"]] == [
                "min-max",
                "moving-average",
                "dynamic",
            ]
            assert written["comparison"]["agreement"] >= 0.95
        else:
            assert written["quantization"] is None
            assert written["comparison"]["max_difference"] <= 1e-4
