"""Convert a network from PyTorch to ONNX with torch.onnx, and quantise the model to int8 with ONNX Runtime.

Static quantisation uses the QDQ format and a separate scale for each channel.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from stages.core.errors import run
from stages.export.converters.graph import FLOAT_SCOPE, Graph, check_quantised, read_samples
from stages.export.converters.protocol import FLOAT, Candidate, read_request, write_candidates

OPSET = 18
SCOPES = "pkg.torch.onnx.name_scopes"
AVERAGING: Mapping[str, Mapping[str, Any]] = {
    "min-max": {},
    # 0.05 is the weight of a new sample. ai-edge-quantizer uses the same weight for TFLite.
    "moving-average": {"CalibMovingAverage": True, "CalibMovingAverageConstant": 0.05},
}


def export(graph: Graph) -> onnx.ModelProto:
    """Convert the graph to a float ONNX model with a dynamic batch size, and name the nodes with `name_by_scope`."""
    batch = torch.export.Dim("batch")
    shapes = [{0: batch} for _ in graph.example]
    program = torch.onnx.export(
        graph.module,
        # torch.export would treat a batch of one as a constant, so the example has two samples.
        tuple(torch.cat([value, value]) for value in graph.example),
        dynamo=True,
        opset_version=OPSET,
        input_names=graph.inputs,
        output_names=graph.outputs,
        dynamic_shapes=(shapes[0], tuple(shapes[1:])) if len(shapes) > 1 else (shapes[0],),
        verbose=False,
    )
    assert program is not None, "torch.onnx.export returns a program when dynamo is asked for"
    return name_by_scope(program.model_proto)


def name_by_scope(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rename the model's nodes: "preprocess/<number>" if the node stays in float, "body/<number>" if it does not.

    The model is changed in place.
    """
    floating = float_nodes(model)
    for number, node in enumerate(model.graph.node):
        node.name = f"{FLOAT_SCOPE if number in floating else 'body'}/{number}"
    return model


def float_nodes(model: onnx.ModelProto) -> set[int]:
    """Return the indices of the nodes of the preprocessing and of all nodes that they depend on."""
    producers = {name: i for i, node in enumerate(model.graph.node) for name in node.output}
    scope = re.compile(rf"(^|\W){FLOAT_SCOPE}(\W|$)")
    pending = [
        i
        for i, node in enumerate(model.graph.node)
        if any(entry.key == SCOPES and scope.search(entry.value) for entry in node.metadata_props)
    ]
    floating: set[int] = set()
    while pending:
        number = pending.pop()
        if number not in floating:
            floating.add(number)
            pending += [producers[name] for name in model.graph.node[number].input if name in producers]
    return floating


class Samples(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """The reader from which ONNX Runtime gets the calibration inputs one by one."""

    def __init__(self, feeds: Sequence[dict[str, np.ndarray]]) -> None:
        self._remaining: Iterator[dict[str, np.ndarray]] = iter(feeds)

    def get_next(self) -> Any:
        """Return the next calibration input as arrays by input name, or None after the last calibration input."""
        return next(self._remaining, None)


def quantise(model: onnx.ModelProto, method: str, feeds: Sequence[dict[str, np.ndarray]]) -> onnx.ModelProto:
    """Return a copy of the model that is quantised to int8, except for the preprocessing, which stays in float.

    Args:
        model: The float model.
        method: "min-max", "moving-average" or "dynamic"; `protocol` describes these methods.
        feeds: Calibration inputs, each with arrays by input name; the method "dynamic" does not use them.
    """
    excluded = [node.name for node in model.graph.node if node.name.startswith(FLOAT_SCOPE)]
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(model), source)
        if method == "dynamic":
            quantize_dynamic(source, result, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=excluded)
        else:
            quantize_static(
                source,
                result,
                Samples(feeds),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=excluded,
                extra_options=dict(AVERAGING[method]),
            )
        return onnx.load(result)


def strip_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """Shorten all names in the model, and remove stack traces, paths, doc strings and versions.

    The model is changed in place. Without this metadata, equal networks give equal bytes.
    """
    kept = {value.name for value in [*model.graph.input, *model.graph.output]}
    short: dict[str, str] = {"": ""}
    for name in [*(w.name for w in model.graph.initializer), *(n for node in model.graph.node for n in node.output)]:
        short.setdefault(name, name if name in kept else f"t{len(short)}")
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
        node.input[:] = [short.get(name, name) for name in node.input]
        node.output[:] = [short[name] for name in node.output]
    for weight in model.graph.initializer:
        weight.name = short[weight.name]
    for part in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.initializer,
        *model.graph.input,
        *model.graph.output,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    model.graph.ClearField("value_info")
    model.graph.ClearField("quantization_annotation")
    model.ClearField("producer_version")
    model.graph.name = "model"
    onnx.checker.check_model(model)
    return model


def main() -> None:
    request = read_request("python -m stages.export.converters.onnx", __doc__)
    warnings.simplefilter("ignore")
    graph = Graph.read(request.network)
    model = export(graph)
    feeds = graph.feeds(read_samples(request.samples))
    candidates = []
    for method in request.methods:
        result = strip_metadata(
            onnx.ModelProto.FromString(model.SerializeToString()) if method == FLOAT else quantise(model, method, feeds)
        )
        if method != FLOAT:
            integers = (w for w in result.graph.initializer if w.data_type == onnx.TensorProto.INT8)
            check_quantised(graph, sum(int(np.prod(w.dims)) for w in integers))
        onnx.save(result, request.output / f"{method}.onnx")
        candidates.append(Candidate(f"{method}.onnx", method, graph.io("onnxruntime")))
    write_candidates(request.output, candidates)


if __name__ == "__main__":
    run(main)
