"""Keras ConvLSTM layers: every number of axes, padding, strides, dilation, both directions."""

import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

import registry
from zoo.recurrent import convert

from .comparison import assert_close

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "one axis": ("ConvLSTM1D", (9,), {"dilation_rate": 2, "activation": "relu"}),
    "same": ("ConvLSTM2D", (6, 7), {"padding": "same"}),
    "valid, strides": ("ConvLSTM2D", (8, 7), {"strides": 2}),
    "another window": ("ConvLSTM2D", (6, 7), {"kernel_size": (2, 3), "use_bias": False}),
    "three axes": ("ConvLSTM3D", (4, 5, 4), {"padding": "same"}),
    "backwards": ("ConvLSTM2D", (6, 7), {"padding": "same", "go_backwards": True}),
}


@pytest.fixture
def keras() -> Iterator[Any]:
    os.environ.setdefault("KERAS_BACKEND", "numpy")
    # Keras computes with JAX here and there, and minds what our own tests are strict about.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield pytest.importorskip("keras")


def weighted(layer: Any, x: np.ndarray) -> Any:
    """Builds a layer, and gives it weights of which none is zero."""
    layer(x)
    random = np.random.default_rng(2)
    arrays = [0.3 * random.normal(size=w.shape) for w in layer.get_weights()]
    layer.set_weights([a.astype(np.float32) for a in arrays])
    return layer


@pytest.mark.parametrize("case", CASES)
def test_layers(keras: Any, case: str) -> None:
    name, space, options = CASES[case]
    x = np.random.default_rng(1).normal(size=(2, 5, *space, 3)).astype(np.float32)
    given = {"kernel_size": 3, "return_sequences": True, **options}
    layer = weighted(getattr(keras.layers, name)(4, **given), x)
    expected = np.asarray(layer(x))
    config, variables = convert.from_keras(layer)
    _, ys = registry.build(config).apply(variables, None, x)
    assert_close(ys[:, ::-1] if "go_backwards" in options else ys, expected)
    again = convert.from_keras(layer.get_weights(), keras.saving.serialize_keras_object(layer))
    assert again[0] == config


def test_both_directions(keras: Any) -> None:
    x = np.random.default_rng(1).normal(size=(2, 5, 6, 6, 3)).astype(np.float32)
    inner = keras.layers.ConvLSTM2D(4, 3, padding="same", return_sequences=True)
    layer = weighted(keras.layers.Bidirectional(inner, merge_mode="sum"), x)
    config, variables = convert.from_keras(layer)
    assert config["merge"] == "sum"
    _, ys = registry.build(config).apply(variables, None, x)
    assert_close(ys, np.asarray(layer(x)))
