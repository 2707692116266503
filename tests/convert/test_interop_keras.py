"""Keras 3 beyond the grid: sequences, stacked cells, directions, merging, activations."""

import os
from typing import Any

import jax
import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")

from zoo.recurrent import convert
from zoo.recurrent.convert import ConversionError

from . import reference
from .comparison import assert_close

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

X = np.random.default_rng(1).normal(size=(2, 6, 3)).astype(np.float32)


@pytest.fixture
def keras():
    # Imported here, because other tests should not wait for it.
    library = pytest.importorskip("keras")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield library


def built(layer: Any) -> Any:
    layer(X)
    rng = np.random.default_rng(4)
    layer.set_weights([0.4 * rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def check(keras: Any, layer: Any) -> dict[str, Any]:
    config, variables = convert.from_keras(layer)
    assert_close(reference.run(config, variables, X)[1], layer(X))
    expected = convert.from_keras(layer.get_weights(), keras.saving.serialize_keras_object(layer))
    assert config == expected[0]
    for found, array in zip(convert.to_keras(config, variables), layer.get_weights(), strict=True):
        assert found.shape == array.shape
    layer.set_weights(convert.to_keras(config, variables))
    assert_close(reference.run(config, variables, X)[1], layer(X))
    return config


def test_sequential(keras: Any) -> None:
    layers = [keras.layers.GRU(4, return_sequences=True) for _ in range(3)]
    config = check(keras, built(keras.Sequential([keras.Input((None, 3)), *layers])))
    assert config["num_layers"] == 3


def test_rnn_of_cells(keras: Any) -> None:
    for cell in (keras.layers.GRUCell(4), keras.layers.LSTMCell(4), keras.layers.SimpleRNNCell(4)):
        check(keras, built(keras.layers.RNN(cell, return_sequences=True)))
    stacked = keras.layers.StackedRNNCells([keras.layers.LSTMCell(4) for _ in range(2)])
    rnn = built(keras.layers.RNN(stacked, return_sequences=True, return_state=True))
    config, variables = convert.from_keras(rnn)
    ys, *states = rnn(X)
    carry, outputs = reference.run(config, variables, X)
    assert_close(outputs, ys)
    assert_close(convert.carry_from_keras(config, states), carry)


def test_backwards(keras: Any) -> None:
    options = {"return_sequences": True, "return_state": True, "go_backwards": True}
    layer = built(keras.layers.GRU(4, **options))
    with pytest.warns(UserWarning, match="reversed order") as caught:
        config, variables = convert.from_keras(layer)
    assert caught[0].filename == __file__
    assert config["reverse"] is True
    ys, state = layer(X)
    carry, outputs = reference.run(config, variables, X)
    assert_close(outputs, np.asarray(ys)[:, ::-1])
    assert_close(carry, state)

    last = built(keras.layers.GRU(4, go_backwards=True))
    config, variables = convert.from_keras(last)
    assert_close(reference.run(config, variables, X)[0], last(X))

    stacked = keras.layers.StackedRNNCells([keras.layers.GRUCell(4) for _ in range(2)])
    rnn = built(keras.layers.RNN(stacked, go_backwards=True))
    config, variables = convert.from_keras(rnn)
    assert config["reverse"] is True and config["name"] == "stack"
    assert_close(reference.run(config, variables, X)[1][:, 0], rnn(X))


@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("depth", [1, 2])
def test_merge_modes(keras: Any, mode: str, depth: int) -> None:
    layers = [
        keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True), merge_mode=mode)
        for _ in range(depth)
    ]
    check(keras, built(keras.Sequential([keras.Input((None, 3)), *layers])))


def test_unequal_directions(keras: Any) -> None:
    both = keras.layers.Bidirectional(
        keras.layers.GRU(4, return_sequences=True),
        backward_layer=keras.layers.GRU(5, return_sequences=True, go_backwards=True),
    )
    both(X)
    with pytest.raises(ConversionError, match="features=5"):
        convert.from_keras(both)


def test_stateful_layers_have_states_among_their_weights(keras: Any) -> None:
    layer = keras.layers.LSTM(4, return_sequences=True, stateful=True)
    layer(X)
    layer.reset_state()
    config, variables = convert.from_keras(layer)
    assert_close(reference.run(config, variables, X)[1], layer(X))


@pytest.mark.parametrize("reset_after", [True, False])
def test_hard_sigmoid_gates(keras: Any, reset_after: bool) -> None:
    layer = keras.layers.GRU(
        4,
        activation="softsign",
        recurrent_activation="hard_sigmoid",
        reset_after=reset_after,
        return_sequences=True,
    )
    config = check(keras, built(layer))
    assert config["gate_fn"] == "hard_sigmoid" and config["activation_fn"] == "soft_sign"


def test_layer_that_is_not_built(keras: Any) -> None:
    with pytest.raises(ConversionError, match="Call the layer once"):
        convert.from_keras(keras.layers.GRU(4))
