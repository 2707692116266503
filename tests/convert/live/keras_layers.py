"""Keras 3."""

import dataclasses
import os
from typing import Any

import numpy as np

from .shapes import FEATURES, Shape, randomise

# Keras reads this once, at import. Its default, TensorFlow, may not be there.
os.environ.setdefault("KERAS_BACKEND", "numpy")


class Keras:
    """Keras 3 layers."""

    cells = ("gru", "gru_reset_before", "lstm", "rnn")
    # With float64 weights Keras still multiplies in float32, on every backend but TensorFlow.
    biases, float64 = (True, False), False

    def build(self, shape: Shape) -> Any:
        import keras

        kinds = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM, "rnn": keras.layers.SimpleRNN}
        options = {"dtype": shape.dtype, "use_bias": shape.bias}
        if shape.cell.startswith("gru"):
            options["reset_after"] = shape.cell == "gru"
        layers = []
        for index in range(shape.layers):
            layer = kinds[shape.cell.split("_")[0]](
                FEATURES, return_sequences=True, return_state=True, **options
            )
            if shape.directions == 2:
                layer = keras.layers.Bidirectional(layer, dtype=shape.dtype)
            layer(np.zeros((1, 2, shape.inputs(index)), shape.dtype))
            layers.append(layer)
        rng = shape.rng()
        for layer in layers:
            layer.set_weights([randomise(rng, w) for w in layer.get_weights()])
        return layers

    def plain(self, layers: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        weights = [w for layer in layers for w in layer.get_weights()]
        described = [
            {"class_name": type(layer).__name__, "config": layer.get_config()} for layer in layers
        ]
        return (weights, described), {}

    def run(self, layers: Any, shape: Shape, x: Any, lengths: Any, start: Any) -> Any:
        mask = None if lengths is None else np.arange(x.shape[1])[None] < lengths[:, None]
        ends = []
        for layer, state in zip(layers, start, strict=True):
            flat = [a for side in state for a in side]
            x, *end = layer(x, initial_state=flat, mask=mask)
            x = np.asarray(x) if mask is None else np.where(mask[..., None], x, 0)
            size = 1 + shape.has_c
            ends.append(
                [[np.asarray(a) for a in end[i : i + size]] for i in range(0, len(end), size)]
            )
        return x, ends

    def convert(self, convert: Any, layers: Any) -> Any:
        return convert.from_keras(layers if len(layers) > 1 else layers[0])

    def load(self, convert: Any, shape: Shape, config: Any, variables: Any) -> Any:
        layers = self.build(dataclasses.replace(shape, seed=99))
        weights = convert.to_keras(config, variables)
        for layer in layers:
            count = len(layer.get_weights())
            layer.set_weights(weights[:count])
            weights = weights[count:]
        assert not weights
        return layers

    def state(self, shape: Shape, start: Any) -> Any:
        layers = [[a for side in layer for a in side] for layer in start]
        return layers if shape.layers > 1 else layers[0]
