"""Convert CNNs from PyTorch to TFLite with TensorFlow's converter, if the conversion with litert-torch fails.

The network is rebuilt in Keras with the same weights and with channels last. tflite.py quantises the result to int8.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from stages.core.errors import ConversionError, run
from stages.export.converters.graph import FLOAT_SCOPE, Graph
from stages.export.converters.protocol import read_request
from stages.export.converters.tflite import rename_signature, write

# The scope of an operation consists of the layers' names, for example "cnn/preprocess/sub;".
FLOAT_PATTERN = rf"(^|.*[/;]){FLOAT_SCOPE}[_/;].*"


def rebuild(network: Any) -> Any:
    """Return a Keras model that computes the same logits as a torch network.

    The input has the shape [1, *spec.shape] in raw units, channels first, as in the torch network.

    Raises:
        ConversionError: The network is not a CNN.
    """
    if network.kind != "cnn":
        raise ConversionError("Keras converter", f"found a {network.kind}", "a cnn", "use another converter")
    import keras

    sample = keras.Input(batch_shape=(1, *network.spec.shape), name="input")
    x = preprocessing()(network.preprocess, name=FLOAT_SCOPE)(sample)
    for number, block in enumerate(network.body.blocks):
        x = convolution(block, number)(x)
        x = keras.layers.ReLU(name=f"relu_{number}")(x)
        pool = keras.layers.MaxPooling2D if len(x.shape) == 4 else keras.layers.MaxPooling1D
        x = pool(network.pool, name=f"pool_{number}")(x)
    weight = _array(network.body.hidden.weight)
    if network.body.average is None:
        # torch flattens with channels first, Keras with channels last: reorder the columns of the weights to match.
        positions, width = tuple(x.shape[1:-1]), x.shape[-1]
        weight = np.moveaxis(weight.reshape(len(weight), width, *positions), 1, -1).reshape(len(weight), -1)
        x = keras.layers.Flatten(name="flatten")(x)
    else:
        x = keras.ops.mean(x, axis=tuple(range(1, len(x.shape) - 1)))
    x = dense(weight, network.body.hidden.bias, "hidden")(x)
    x = keras.layers.ReLU(name="hidden_relu")(x)
    x = dense(_array(network.body.classifier.weight), network.body.classifier.bias, "classifier")(x)
    return keras.Model(sample, x, name="cnn")


def preprocessing() -> Any:
    """Return a Keras layer class with the same computation as the torch module `stages.networks.Preprocess`.

    The class is defined in a function, because importing Keras takes seconds.
    """
    import keras
    from keras import ops

    class Preprocess(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        def __init__(self, module: Any, name: str) -> None:
            super().__init__(name=name)
            self.center, self.scale = _array(module.center), _array(module.scale)
            self.bins, self.features = module.bins, module.features

        def call(self, x: Any) -> Any:
            if self.bins is not None:
                return self.binned(ops.moveaxis(x, 1, -1), self.bins)
            scaled = ops.moveaxis((x - self.center) / self.scale, 1, -1)
            return scaled if self.features is None else self.spectrum(scaled, self.features)

        def binned(self, x: Any, bins: Any) -> Any:
            """Encode raw values by quantile bins: [1, T, C] -> [1, T, C * bins].

            `bins` is the corresponding torch module; its tensors `edge` and `slope` have the shape [1, C, bins, 1].
            """
            edge, slope = (_array(v)[0, :, :, 0] for v in (bins.edge, bins.slope))
            shares = ops.clip((x[..., None] - edge) * slope, 0.0, 1.0)
            return ops.reshape(shares, (1, -1, edge.size))

        def spectrum(self, x: Any, features: Any) -> Any:
            """Compute the spectral features of an audio clip: [1, T, 1] -> [1, bands, frames, 1]."""
            kernels = np.transpose(_array(features.kernels), (2, 1, 0))
            spectrum = ops.conv(x, kernels, strides=features.hop, padding="valid")
            bins = spectrum.shape[-1] // 2
            power = ops.square(spectrum[..., :bins]) + ops.square(spectrum[..., bins:])
            bands = ops.log(ops.matmul(power, _array(features.filters)[:, :, 0].T) + floor())
            if features.mfcc:
                bands = ops.matmul(bands, _array(features.cosines)[:, :, 0].T)
            rows = ops.moveaxis(bands, 1, 2)[..., None]
            center, scale = (np.moveaxis(_array(v), 1, -1) for v in (features.band_center, features.band_scale))
            return (rows - center) / scale

    return Preprocess


def floor() -> float:
    """Return the constant POWER_FLOOR of the torch network. It is imported here, because the import loads torch."""
    from stages.networks.preprocess import POWER_FLOOR

    return POWER_FLOOR


def convolution(block: Any, number: int) -> Any:
    """Return a block's convolution as a Keras layer. The block's batch normalisation is folded into the weights."""
    import keras

    source, norm = block[0], block[1]
    gain = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    kernel = _array(source.weight) * gain.reshape(-1, *[1] * (source.weight.dim() - 1))
    bias = _array(norm.bias) - _array(norm.running_mean) * gain
    if source.bias is not None:
        bias = bias + _array(source.bias) * gain
    layer = keras.layers.Conv2D if kernel.ndim == 4 else keras.layers.Conv1D
    return layer(
        len(kernel),
        kernel.shape[2:],
        padding="same",
        kernel_initializer=keras.initializers.Constant(np.moveaxis(kernel, (0, 1), (-1, -2))),
        bias_initializer=keras.initializers.Constant(bias),
        name=f"convolution_{number}",
    )


def dense(weight: np.ndarray, bias: Any, name: str) -> Any:
    """Return a Keras layer with the weights and the bias of a linear torch layer.

    Args:
        weight: The weights [outputs, inputs].
        bias: The bias [outputs], a torch tensor.
        name: The layer's name.
    """
    import keras

    return keras.layers.Dense(
        len(weight),
        kernel_initializer=keras.initializers.Constant(weight.T),
        bias_initializer=keras.initializers.Constant(_array(bias)),
        name=name,
    )


def _array(tensor: Any) -> np.ndarray:
    values: np.ndarray = tensor.detach().numpy()
    return values


def export(graph: Graph) -> bytes:
    """Return the content of a TFLite file with the float model and batch size 1."""
    import tensorflow as tf

    content: bytes = tf.lite.TFLiteConverter.from_keras_model(rebuild(graph.network)).convert()
    return content


def main() -> None:
    request = read_request("python -m stages.export.converters.keras", __doc__)
    warnings.simplefilter("ignore")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    graph = Graph.read(request.network)
    write(
        graph, rename_signature(export(graph), graph), request.methods, request.samples, request.output, FLOAT_PATTERN
    )


if __name__ == "__main__":
    run(main)
