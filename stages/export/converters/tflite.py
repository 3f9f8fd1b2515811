"""PyTorch -> TFLite by litert-torch, and int8 by ai-edge-quantizer."""

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
SMOOTHING = 0.95  # of the quantizer's own moving average
# An operation's scope is the name of its output, made of the modules' names: "...Preprocess_preprocess/...;".
FLOAT_PATTERN = rf".*_{FLOAT_SCOPE}[/;].*"


def export(graph: Graph) -> bytes:
    """Float model for one sample at a time."""
    import litert_torch

    return bytes(litert_torch.convert(graph.module, graph.example).model_content())


def quantise(
    model: bytes, methods: Sequence[str], feeds: Sequence[dict[str, np.ndarray]], floating: str = FLOAT_PATTERN
) -> dict[str, bytes]:
    """`model` with int8 weights, by method; what `float_scopes` finds stays in float."""
    from ai_edge_quantizer import quantizer

    floating = float_scopes(model, floating)
    result = {}
    ranges: dict[str, Any] = {}
    for method in methods:
        worker = quantizer.Quantizer(model, recipe(method, floating))
        if method != "dynamic" and not ranges:
            ranges = calibrate(model, recipe(method, floating), feeds)
        done = worker.quantize(ranges.get(method), enable_progress_report=False).quantized_model
        assert done is not None, "the quantizer returns a model or raises"
        result[method] = bytes(done)
    return result


def float_scopes(model: bytes, pattern: str) -> str:
    """A pattern of exactly the scopes of the preprocessing, those that `pattern` matches, and of all operations
    that they depend on: a converter may move a reshape of the body before a scaling.
    """
    from ai_edge_quantizer.utils.tfl_flatbuffer_utils import get_op_scope

    subgraph = opened(model).subgraphs[0]
    scopes = [get_op_scope(operator, subgraph.tensors) for operator in subgraph.operators]
    makers = {output: i for i, operator in enumerate(subgraph.operators) for output in operator.outputs}
    pending = [i for i, scope in enumerate(scopes) if re.match(pattern, scope)]
    found: set[int] = set()
    while pending:
        number = pending.pop()
        if number not in found:
            found.add(number)
            pending += [makers[name] for name in subgraph.operators[number].inputs if name in makers]
    # (?!) matches nothing: a network without preprocessing has no float scope.
    return "^(" + "|".join([re.escape(scopes[number]) for number in sorted(found)] or ["(?!)"]) + ")$"


def recipe(method: str, floating: str) -> Any:
    """int8 for every operation that has an int8 form, float for those whose scope matches `floating`."""
    from ai_edge_quantizer import qtyping, recipe_manager

    manager = recipe_manager.RecipeManager()
    every = qtyping.TFLOperationName.ALL_SUPPORTED
    if method == "dynamic":
        manager.add_dynamic_config(".*", every, num_bits=8)
    else:
        manager.add_static_config(".*", every, activation_num_bits=8, weight_num_bits=8)
    manager.add_quantization_config(floating, every, algorithm_key="no_quantize")
    # Inputs too: int8 ones would have one scale for all channels, before the preprocessing sees them.
    manager.add_quantization_config(".*", qtyping.TFLOperationName.INPUT, algorithm_key="no_quantize")
    return manager.get_quantization_recipe()


def calibrate(model: bytes, static: Any, feeds: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Ranges of every tensor, both ways from one pass: {"min-max": ..., "moving-average": ...}.

    The moving average is the quantizer's default and clips outliers; which is better depends on the network.
    """
    from ai_edge_quantizer import calibrator, recipe_manager

    def both(known: Any, new: Any) -> Any:
        low, high = known.get("low", known["min"]), known.get("high", known["max"])
        return {
            "min": np.minimum(known["min"], new["min"]),
            "max": np.maximum(known["max"], new["max"]),
            "low": SMOOTHING * low + (1 - SMOOTHING) * new["min"],
            "high": SMOOTHING * high + (1 - SMOOTHING) * new["max"],
        }

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(static)
    watcher = calibrator.Calibrator(model, num_threads=1, qsv_update_func=both)
    watcher.calibrate({SIGNATURE: feeds}, manager)
    found = watcher.get_model_qsvs()
    return {
        "min-max": {name: {"min": q["min"], "max": q["max"]} if q else q for name, q in found.items()},
        "moving-average": {
            name: {"min": q.get("low", q["min"]), "max": q.get("high", q["max"])} if q else q
            for name, q in found.items()
        },
    }


def renamed(model: bytes, graph: Graph) -> bytes:
    """With the graph's names for inputs and outputs (litert-torch numbers them; a single one may have any name)."""
    content = opened(model)
    (signature,) = content.signatureDefs
    for entries, names in ((signature.inputs, graph.inputs), (signature.outputs, graph.outputs)):
        for entry in entries:
            entry.name = names[int(entry.name.decode().rpartition("_")[2]) if len(names) > 1 else 0]
    return packed(content)


def cleaned(model: bytes) -> bytes:
    """With short names for tensors and no metadata: the names of a transformer weigh a tenth of its weights."""
    content = opened(model)
    for subgraph in content.subgraphs:
        subgraph.name = None
        for number, tensor in enumerate(subgraph.tensors):
            tensor.name = f"t{number}"
    # Where an answer is also read by a later operation, the quantizer puts that operation's requantised copy
    # among the graph's outputs, and leaves the signature's own without a value.
    (signature,) = content.signatureDefs
    answers = [output.tensorIndex for output in signature.outputs]
    if set(answers) != set(content.subgraphs[0].outputs):
        content.subgraphs[0].outputs = answers
    content.metadata = None
    content.description = None
    return packed(content)


def opened(model: bytes) -> Any:
    """The file as objects of the schema; large buffers, which stand behind the flatbuffer, are taken in."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(model))


def packed(content: Any) -> bytes:
    """The file of objects of the schema: its buffers aligned to 16 bytes, equal vectors stored once.

    Python's flatbuffers does not know `force_align`, which the schema demands: kernels may read weights with
    aligned loads. Per-channel zero points, 8 bytes each and all zero, would take an eighth of a small file.
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

    for place, buffer in enumerate(content.buffers):
        content.buffers[place] = Aligned()
        content.buffers[place].data = buffer.data
    for scales in (tensor.quantization for subgraph in content.subgraphs for tensor in subgraph.tensors):
        if scales is not None and scales.zeroPoint is not None:
            scales.zeroPoint = np.asarray(scales.zeroPoint, np.int64)
    builder = Builder()
    builder.Finish(content.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def int8_elements(model: bytes) -> int:
    """How many values of constants are stored as int8."""
    from ai_edge_litert import schema_py_generated as schema

    content = opened(model)
    constants = {
        tensor.buffer: content.buffers[tensor.buffer].data
        for subgraph in content.subgraphs
        for tensor in subgraph.tensors
        if tensor.type == schema.TensorType.INT8
    }
    return sum(len(data) for data in constants.values() if data is not None)


def described(graph: Graph, model: bytes) -> dict[str, Any]:
    """The graph's description, with the type that the file's answer has: static int8 files answer in int8."""
    from ai_edge_litert import schema_py_generated as schema

    content, io = opened(model), graph.io("litert")
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
    """Write the candidates of a float TFLite model whose signature has the graph's names."""
    wanted = [method for method in methods if method != FLOAT]
    forms = {FLOAT: model} if FLOAT in methods else {}
    if wanted:
        forms |= quantise(model, wanted, graph.feeds(read_samples(samples)), floating)
    candidates = []
    for method, content in forms.items():
        if method != FLOAT:
            check_quantised(graph, int8_elements(content))
        (output / f"{method}.tflite").write_bytes(cleaned(content))
        candidates.append(Candidate(f"{method}.tflite", method, described(graph, content)))
    write_candidates(output, candidates)


def main() -> None:
    request = read_request("python -m stages.export.converters.tflite", __doc__)
    warnings.simplefilter("ignore")
    graph = Graph.read(request.network)
    write(graph, renamed(export(graph), graph), request.methods, request.samples, request.output)


if __name__ == "__main__":
    run(main)
