"""Small model files built by hand, like those of a third party: their outputs are known exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def description(runtime: str, shape: list[int], classes: int, **changes: Any) -> dict[str, Any]:
    """An `io` description of a float model with input "x" and output "y"."""
    return {
        "runtime": runtime,
        "input": {"name": "x", "shape": shape, "dtype": "float32"},
        "output": {"name": "y", "shape": [classes], "dtype": "float32", "activation": "logits"},
        "recurrent": None,
        **changes,
    }


def onnx_linear(path: Path, weight: np.ndarray, *, batch: int | str = "batch", operator: str | None = None) -> Path:
    """y = x @ weight, then `operator` on it; x [batch, n], y [batch, classes]."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["product" if operator else "y"])]
    if operator:
        nodes.append(helper.make_node(operator, ["product"], ["y"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, weight.shape[0]])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, weight.shape[1]])]
    return _save_onnx(path, nodes, inputs, outputs, {"w": weight.astype(np.float32)})


def onnx_flatten_linear(path: Path, weight: np.ndarray, shape: tuple[int, ...], side: int = 0) -> Path:
    """Write y = flatten(x) @ weight.

    Args:
        path: The ONNX file.
        weight: The weights, float32 [size of a sample, classes].
        shape: Shape of a sample.
        side: If it is not 0, each run also multiplies two matrices with this number of rows and columns, so it is slow.
    """
    constants: dict[str, np.ndarray] = {"w": weight}
    nodes = [helper.make_node("Flatten", ["x"], ["flat"])]
    if side:
        # The matrix depends on x, or else it would be computed when the file is loaded.
        one = numpy_helper.from_array(np.ones(1, np.float32))
        constants |= {"side": np.array([side, side], np.int64), "zero": np.zeros((), np.float32)}
        nodes += [
            helper.make_node("MatMul", ["flat", "w"], ["plain"]),
            helper.make_node("ReduceMax", ["flat"], ["largest_input"], keepdims=0),
            helper.make_node("ConstantOfShape", ["side"], ["ones"], value=one),
            helper.make_node("Mul", ["ones", "largest_input"], ["matrix"]),
            helper.make_node("MatMul", ["matrix", "ones"], ["product"]),
            helper.make_node("ReduceMax", ["product"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "zero"], ["nothing"]),
            helper.make_node("Add", ["plain", "nothing"], ["y"]),
        ]
    else:
        nodes.append(helper.make_node("MatMul", ["flat", "w"], ["y"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weight.shape[1]])]
    return _save_onnx(path, nodes, inputs, outputs, constants)


def onnx_step(path: Path, channels: int, frame: int) -> Path:
    """Write one step of a recurrent model: state = state / 2 + sum of the frame per channel; it returns the state."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["state", "half"], ["faded"]),
        helper.make_node("Add", ["faded", "sum"], ["next"]),
        helper.make_node("Identity", ["next"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, frame]),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, ["batch", channels]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels]) for name in ("y", "next")]
    weights: dict[str, np.ndarray] = {"axis": np.array([2], np.int64), "half": np.array(0.5, np.float32)}
    return _save_onnx(path, nodes, inputs, outputs, weights)


def onnx_identity(path: Path, shape: list[Any], kind: int) -> Path:
    """y = x, of any shape and type."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    value = [helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    return _save_onnx(path, nodes, value[:1], value[1:], {})


def _save_onnx(path: Path, nodes: Any, inputs: Any, outputs: Any, weights: dict[str, np.ndarray]) -> Path:
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "by_hand", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def tflite_int8_linear(
    path: Path,
    weight: np.ndarray,
    input_scale: tuple[float, int],
    output_scale: tuple[float, int],
    shape: tuple[int, ...] = (),
) -> Path:
    """y = x @ weight with int8 input "x", weights and output "y", no signature; scales are (scale, zero point).

    A sample has this shape and is flattened; left out, it is a vector.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    step = float(np.abs(weight).max() / 127)
    levels = np.round(weight.T / step).astype(np.int8)
    classes, width = levels.shape
    kinds = schema.TensorType
    tensors = [
        _tensor(schema, "x", [1, *(shape or (width,))], kinds.INT8, 0, input_scale),
        _tensor(schema, "w", [classes, width], kinds.INT8, 1, (step, 0)),
        _tensor(schema, "b", [classes], kinds.INT32, 2, (step * input_scale[0], 0)),
        _tensor(schema, "y", [1, classes], kinds.INT8, 0, output_scale),
    ]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    subgraph = schema.SubGraphT()
    subgraph.tensors, subgraph.inputs, subgraph.outputs, subgraph.operators = tensors, [0], [3], [operator]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [subgraph]
    model.buffers = [_buffer(schema, data) for data in (None, levels, np.zeros(classes, np.int32))]
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return path


def tflite_without_graph(path: Path) -> Path:
    """A TFLite file that LiteRT's checks let pass and that ends the process which loads it: SIGSEGV (2.3)."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = schema.ModelT()
    model.version, model.buffers = 3, [_buffer(schema, None)]
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return path


def _tensor(schema: Any, name: str, shape: list[int], kind: int, buffer: int, scale: tuple[float, int]) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, kind, buffer
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [scale[0]], [scale[1]]
    return tensor


def _buffer(schema: Any, data: np.ndarray | None) -> Any:
    buffer = schema.BufferT()
    if data is not None:
        buffer.data = np.frombuffer(data.tobytes(), np.uint8)
    return buffer
