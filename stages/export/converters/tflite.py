"""Convert a network from PyTorch to TFLite with litert-torch, and quantise it to int8 with ai-edge-quantizer."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.errors import run
from stages.export.converters.graph import FLOAT_SCOPE, Graph, check_quantised, read_samples
from stages.export.converters.protocol import FLOAT, Candidate, read_request, write_candidates

SIGNATURE = "serving_default"
SMOOTHING = 0.95  # weight of the previous average; the quantizer's default
# The scope of an operation is the name of its output. It contains the modules' names: "...Preprocess_preprocess/...;".
FLOAT_PATTERN = rf".*_{FLOAT_SCOPE}[/;].*"


def export(graph: Graph) -> bytes:
    """Return the content of a TFLite file with the float model and batch size 1."""
    import litert_torch

    return bytes(litert_torch.convert(graph.module, graph.example).model_content())


def quantise(
    model: bytes, methods: Sequence[str], feeds: Sequence[dict[str, np.ndarray]], floating: str = FLOAT_PATTERN
) -> dict[str, bytes]:
    """Return one int8 file for each quantisation method. The operations that `float_scopes` selects stay in float.

    Args:
        model: Content of the float TFLite file.
        methods: Quantisation methods of `protocol`, without "float".
        feeds: Calibration inputs, each with arrays by input name.
        floating: A regular expression that matches the scopes of the preprocessing operations.

    Returns:
        The content of a TFLite file for each method.
    """
    from ai_edge_quantizer import quantizer

    floating = float_scopes(model, floating)
    result = {}
    ranges: dict[str, Any] = {}
    for method in methods:
        worker = quantizer.Quantizer(model, recipe(method, floating))
        if method != "dynamic" and not ranges:
            ranges = calibrate(model, recipe(method, floating), feeds)
        quantised = worker.quantize(ranges.get(method), enable_progress_report=False).quantized_model
        assert quantised is not None, "the quantizer returns a model or raises"
        result[method] = bytes(quantised)
    return result


def float_scopes(model: bytes, pattern: str) -> str:
    """Return a regular expression that matches the scopes of all operations that stay in float.

    These are the preprocessing operations, whose scopes match `pattern`, and all operations on which they depend. A
    preprocessing operation can depend on an operation of the body, because a converter can move a reshape of the body
    to a place before the scaling.
    """
    from ai_edge_quantizer.utils.tfl_flatbuffer_utils import get_op_scope

    subgraph = read_model(model).subgraphs[0]
    scopes = [get_op_scope(operator, subgraph.tensors) for operator in subgraph.operators]
    producers = {output: i for i, operator in enumerate(subgraph.operators) for output in operator.outputs}
    pending = [i for i, scope in enumerate(scopes) if re.match(pattern, scope)]
    selected: set[int] = set()
    while pending:
        number = pending.pop()
        if number not in selected:
            selected.add(number)
            pending += [producers[name] for name in subgraph.operators[number].inputs if name in producers]
    # (?!) matches nothing; it is used for a network without preprocessing, which has no float scope.
    return "^(" + "|".join([re.escape(scopes[number]) for number in sorted(selected)] or ["(?!)"]) + ")$"


def recipe(method: str, floating: str) -> Any:
    """Return a recipe that tells ai-edge-quantizer which operations to quantise.

    Operations whose scope matches `floating` stay in float. All other operations are quantised to int8 if they support
    it.
    """
    from ai_edge_quantizer import qtyping, recipe_manager

    manager = recipe_manager.RecipeManager()
    every = qtyping.TFLOperationName.ALL_SUPPORTED
    if method == "dynamic":
        manager.add_dynamic_config(".*", every, num_bits=8)
    else:
        manager.add_static_config(".*", every, activation_num_bits=8, weight_num_bits=8)
    manager.add_quantization_config(floating, every, algorithm_key="no_quantize")
    # Inputs also stay in float, because an int8 input would have one scale for all channels before preprocessing.
    manager.add_quantization_config(".*", qtyping.TFLOperationName.INPUT, algorithm_key="no_quantize")
    return manager.get_quantization_recipe()


def calibrate(model: bytes, static: Any, feeds: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Measure the value range of every tensor for both static methods in one pass over the calibration inputs.

    The moving average is the quantizer's default and clips outliers. Which method is better depends on the network.

    Args:
        model: Content of the float TFLite file.
        static: The recipe of a static method.
        feeds: Calibration inputs, each with arrays by input name.

    Returns:
        For each method ("min-max" and "moving-average"), the "min" and "max" of each tensor, by the tensor's name.
    """
    from ai_edge_quantizer import calibrator, recipe_manager

    def update(previous: Any, new: Any) -> Any:
        low, high = previous.get("low", previous["min"]), previous.get("high", previous["max"])
        return {
            "min": np.minimum(previous["min"], new["min"]),
            "max": np.maximum(previous["max"], new["max"]),
            "low": SMOOTHING * low + (1 - SMOOTHING) * new["min"],
            "high": SMOOTHING * high + (1 - SMOOTHING) * new["max"],
        }

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(static)
    calibration = calibrator.Calibrator(model, num_threads=1, qsv_update_func=update)
    calibration.calibrate({SIGNATURE: feeds}, manager)
    ranges = calibration.get_model_qsvs()
    return {
        "min-max": {name: {"min": q["min"], "max": q["max"]} if q else q for name, q in ranges.items()},
        "moving-average": {
            name: {"min": q.get("low", q["min"]), "max": q.get("high", q["max"])} if q else q
            for name, q in ranges.items()
        },
    }


def rename_signature(model: bytes, graph: Graph) -> bytes:
    """Return the TFLite file with its inputs and outputs renamed to the names in `graph`.

    In a file from litert-torch, the name of an input or output ends in its index. If there is only one input or output,
    it can have any name.
    """
    content = read_model(model)
    (signature,) = content.signatureDefs
    for entries, names in ((signature.inputs, graph.inputs), (signature.outputs, graph.outputs)):
        for entry in entries:
            entry.name = names[int(entry.name.decode().rpartition("_")[2]) if len(names) > 1 else 0]
    return write_model(content)


def strip_metadata(model: bytes) -> bytes:
    """Return the TFLite file with shorter tensor names and without metadata.

    In the file of a transformer, the original names would need a tenth as much space as the weights.
    """
    content = read_model(model)
    for subgraph in content.subgraphs:
        subgraph.name = None
        for number, tensor in enumerate(subgraph.tensors):
            tensor.name = f"t{number}"
    # If a later operation also reads an output, the quantizer lists the requantised copy for that operation among the
    # graph's outputs; the output of the signature is then never computed.
    (signature,) = content.signatureDefs
    outputs = [output.tensorIndex for output in signature.outputs]
    if set(outputs) != set(content.subgraphs[0].outputs):
        content.subgraphs[0].outputs = outputs
    content.metadata = None
    content.description = None
    return write_model(content)


def read_model(model: bytes) -> Any:
    """Parse the content of a TFLite file into objects of the TFLite schema.

    The result includes large buffers, which are stored after the flatbuffer in the file.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(model))


def write_model(content: Any) -> bytes:
    """Convert objects of the TFLite schema to the content of a TFLite file.

    Buffers are aligned to 16 bytes. The schema requires this alignment (`force_align`), because kernels may read
    weights with aligned loads, but Python's flatbuffers does not support it. Equal vectors are stored only once. If
    they were stored repeatedly, the zero points of the channels (8 bytes each, all zero) would take an eighth of a
    small file.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(1024)
            self.stored: dict[tuple[str, bytes], Any] = {}

        def CreateNumpyVector(self, x: np.ndarray) -> Any:  # noqa: N802 - the library's name
            key = (x.dtype.str, x.tobytes())
            if key not in self.stored:
                self.stored[key] = super().CreateNumpyVector(x)
            return self.stored[key]

    class Aligned(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> Any:  # noqa: N802 - the schema's name
            vector = None
            if self.data is not None:
                data = bytes(self.data)
                builder.StartVector(1, len(data), 16)
                builder.head -= len(data)
                builder.Bytes[builder.head : builder.head + len(data)] = data
                vector = builder.EndVector()
            schema.BufferStart(builder)
            if vector is not None:
                schema.BufferAddData(builder, vector)
            return schema.BufferEnd(builder)

    for number, buffer in enumerate(content.buffers):
        content.buffers[number] = Aligned()
        content.buffers[number].data = buffer.data
    for scales in (tensor.quantization for subgraph in content.subgraphs for tensor in subgraph.tensors):
        if scales is not None and scales.zeroPoint is not None:
            scales.zeroPoint = np.asarray(scales.zeroPoint, np.int64)
    builder = Builder()
    builder.Finish(content.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def int8_elements(model: bytes) -> int:
    """Return the number of elements of all int8 constants in the content of a TFLite file."""
    from ai_edge_litert import schema_py_generated as schema

    content = read_model(model)
    constants = {
        tensor.buffer: content.buffers[tensor.buffer].data
        for subgraph in content.subgraphs
        for tensor in subgraph.tensors
        if tensor.type == schema.TensorType.INT8
    }
    return sum(len(data) for data in constants.values() if data is not None)


def describe(graph: Graph, model: bytes) -> dict[str, Any]:
    """Return the description of the inputs and outputs of the TFLite file `model`, which was converted from `graph`.

    The type of the output is read from the file, because the output is int8 after static quantisation.
    """
    from ai_edge_litert import schema_py_generated as schema

    content, io = read_model(model), graph.io("litert")
    index = next(o.tensorIndex for o in content.signatureDefs[0].outputs if o.name.decode() == "output")
    kinds = {schema.TensorType.FLOAT32: "float32", schema.TensorType.INT8: "int8"}
    io["output"]["dtype"] = kinds[content.subgraphs[0].tensors[index].type]
    return io


def write(
    graph: Graph,
    model: bytes,
    methods: Sequence[str],
    samples: Path,
    output: Path,
    floating: str = FLOAT_PATTERN,
) -> None:
    """Write a candidate file for each method, and candidates.json.

    Args:
        graph: The graph from which the model was converted.
        model: Content of the float TFLite file, with the graph's names for inputs and outputs.
        methods: Quantisation methods of `protocol`.
        samples: The file with the calibration samples.
        output: The folder for the candidate files.
        floating: A regular expression that matches the scopes of the preprocessing operations.
    """
    quantised = [method for method in methods if method != FLOAT]
    models = {FLOAT: model} if FLOAT in methods else {}
    if quantised:
        models |= quantise(model, quantised, graph.feeds(read_samples(samples)), floating)
    candidates = []
    for method, content in models.items():
        if method != FLOAT:
            check_quantised(graph, int8_elements(content))
        (output / f"{method}.tflite").write_bytes(strip_metadata(content))
        candidates.append(Candidate(f"{method}.tflite", method, describe(graph, content)))
    write_candidates(output, candidates)


def main() -> None:
    request = read_request("python -m stages.export.converters.tflite", __doc__)
    warnings.simplefilter("ignore")
    graph = Graph.read(request.network)
    write(graph, rename_signature(export(graph), graph), request.methods, request.samples, request.output)


if __name__ == "__main__":
    run(main)
