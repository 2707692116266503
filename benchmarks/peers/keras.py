"""Keras on JAX: ``keras.layers.GRU`` and ``keras.layers.LSTM``."""

import os
import sys

import numpy as np

from benchmarks.cases import Case, Data
from benchmarks.peers import Competitor, compiled


def competitors(case: Case, data: Data) -> list[Competitor]:
    """One competitor. Keras knows batch-major sequences alone, so it is given those.

    Raises:
      ImportError: Keras is not installed, or already imported with another backend.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "jax"
    import keras

    if keras.backend.backend() != "jax":
        raise ImportError("Keras is already imported with another backend than JAX")
    size = case.size
    layer_class = keras.layers.GRU if case.cell == "gru" else keras.layers.LSTM
    layer = layer_class(
        size.features,
        return_sequences=True,
        dtype=case.array_dtype,
        # The default draws an orthogonal matrix, which bfloat16 cannot, and is replaced below.
        recurrent_initializer="zeros",
    )
    layer.build((size.batch, size.steps, size.inputs))
    layer.set_weights(_weights(case, data))
    params = [variable.value for variable in layer.trainable_variables]
    rest = [variable.value for variable in layer.non_trainable_variables]
    cell_rest = [variable.value for variable in layer.cell.non_trainable_variables]

    def step(params, carry, x):
        (y, carry), _ = layer.cell.stateless_call(params, cell_rest, x, carry)
        return carry, y

    zeros = np.zeros((size.batch, size.features), np.float32)
    return [
        compiled.competitor(
            "keras",
            "keras",
            case,
            data,
            params=params,
            apply=lambda params, xs: layer.stateless_call(params, rest, xs)[0],
            eager=layer,
            step=step,
            carry=compiled.to_device([zeros] * (1 if case.cell == "gru" else 2), case),
            batch_major=True,
        )
    ]


def _weights(case: Case, data: Data) -> list[np.ndarray]:
    gates = "zrn" if case.cell == "gru" else "ifgo"
    biases = [data.joined_bias(side, gates) for side in "ih"]
    bias = np.stack(biases) if case.cell == "gru" else biases[1]
    return [data.joined("i", gates), data.joined("h", gates), bias]
