"""What a Keras config says beside the weights: versions, policies, activations, whole models."""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")

import registry
from zoo.recurrent import convert
from zoo.recurrent.convert import ConversionError, activations

from . import reference
from .comparison import assert_close
from .plain_weights import F32, GRU_WEIGHTS, keras, zeros

X = np.random.default_rng(1).normal(size=(2, 6, 3)).astype(F32)
LSTM_WEIGHTS = [zeros(3, 8), zeros(2, 8), zeros(8)]
TWO = [*GRU_WEIGHTS, zeros(2, 6), *GRU_WEIGHTS[1:]]


def model(*layers: Any, **more: Any) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"layers": list(layers)}, **more}


def leaf(kind: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": config}


def graph(*calls: tuple[str, dict[str, Any], list[str]], ends: list[str]) -> dict[str, Any]:
    layers = []
    for name, layer, origins in calls:
        tensors = [
            {"class_name": "__keras_tensor__", "config": {"keras_history": [origin, 0, 0]}}
            for origin in origins
        ]
        node = [{"args": tensors, "kwargs": {}}] if tensors else []
        layers.append({**layer, "name": name, "inbound_nodes": node})
    config = {"layers": layers, "output_layers": [[end, 0, 0] for end in ends]}
    return {"class_name": "Functional", "config": config}


OLD = {"implementation": 1, "recurrent_activation": "sigmoid", "reset_after": True}
INPUT = ("input", leaf("InputLayer"), [])

REFUSED = {
    "Keras 2, hard_sigmoid": (
        LSTM_WEIGHTS,
        keras("LSTM", recurrent_activation="hard_sigmoid", implementation=1),
        ["hard_sigmoid", "Keras 2", "0.2 x + 0.5", "`gate_fn`"],
    ),
    "Keras 2, hard_sigmoid told by the version": (
        LSTM_WEIGHTS,
        model(keras("LSTM", recurrent_activation="hard_sigmoid"), keras_version="2.15.0"),
        ["hard_sigmoid", "Keras 2"],
    ),
    "Keras 2, hard_sigmoid in Bidirectional": (
        LSTM_WEIGHTS,
        leaf("Bidirectional", layer=keras("LSTM", **{**OLD, "activation": "hard_sigmoid"})),
        ["hard_sigmoid", "Keras 2"],
    ),
    "Keras 2, default of reset_after": (
        GRU_WEIGHTS,
        {**keras(recurrent_activation="sigmoid"), "keras_version": "2.2.4"},
        ["['reset_after']", "trained with"],
    ),
    "Keras 2, default of the gate": (
        LSTM_WEIGHTS,
        keras("LSTM", implementation=1),
        ["['recurrent_activation']"],
    ),
    "Keras 2, time first": (
        GRU_WEIGHTS,
        keras(**OLD, time_major=True),
        ["time_major=False", "'time_axis'"],
    ),
    "subclass": (
        GRU_WEIGHTS,
        {**keras("MyGRU"), "module": "mine", "registered_name": "Custom>MyGRU"},
        ["Custom>MyGRU", "class of your own", "'keras.layers'"],
    ),
    "subclass of the same name": (
        GRU_WEIGHTS,
        leaf("Bidirectional", layer={**keras(), "module": "mine"}),
        ["mine.GRU", "class of your own"],
    ),
    "policy": (
        GRU_WEIGHTS,
        keras(dtype=leaf("QuantizedDTypePolicy", name="int8_from_float32")),
        ["'int8_from_float32'", "before quantisation"],
    ),
    "Masking": (
        GRU_WEIGHTS,
        model(leaf("Masking", mask_value=0.0), keras()),
        ["Masking", "mask=jnp.any(xs != mask_value, axis=-1)"],
    ),
    "Dense": (GRU_WEIGHTS, model(keras(), leaf("Dense")), ["Dense", "layers alone"]),
    "dropout before": (
        GRU_WEIGHTS,
        model(leaf("Dropout", rate=0.5), keras()),
        ["[0.5]", "flax.linen.Dropout"],
    ),
    "dropout after": (
        TWO,
        model(keras(), leaf("Dropout", rate=0.5), keras(), leaf("Dropout", rate=0.5)),
        ["[0.5, 0.5]"],
    ),
    "dropout of two rates": (
        TWO,
        model(keras(), leaf("Dropout", rate=0.5), keras(), leaf("Dropout", rate=0.1), keras()),
        ["[0.5, 0.1]"],
    ),
    "dropout of one mask": (
        TWO,
        model(keras(), leaf("Dropout", rate=0.5, noise_shape=[None, 1, 2]), keras()),
        ["noise_shape", "broadcast_dims"],
    ),
    "branches": (
        TWO,
        graph(INPUT, ("a", keras(), ["input"]), ("b", keras(), ["a", "input"]), ends=["b"]),
        ["['input', 'a', 'b']", "one of ['a', 'b']"],
    ),
    "two outputs": (
        TWO,
        graph(INPUT, ("a", keras(), ["input"]), ("b", keras(), ["a"]), ends=["b", "a"]),
        ["get_layer(name)"],
    ),
    "slope": (
        GRU_WEIGHTS,
        keras(activation=leaf("ReLU", max_value=6, negative_slope=0.1)),
        ["'max_value': 6", "no equal"],
    ),
    "trained slope": (GRU_WEIGHTS, keras(activation=leaf("PReLU")), ["PReLU", "no equal"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_words(case: str) -> None:
    weights, config, parts = REFUSED[case]
    with pytest.raises(ConversionError) as caught:
        convert.from_keras(weights, config)
    for part in parts:
        assert part in str(caught.value)


def test_keras_2_where_it_is_the_same() -> None:
    for config in (keras(**OLD), {**keras(**OLD), "keras_version": "2.15.0"}):
        assert convert.from_keras(GRU_WEIGHTS, config)[0]["name"] == "scan_gru"
    # Without a mark of Keras 2 it is Keras 3, whose hard_sigmoid is that of jax.nn.
    found = convert.from_keras(LSTM_WEIGHTS, keras("LSTM", recurrent_activation="hard_sigmoid"))
    assert found[0]["gate_fn"] == "hard_sigmoid"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("float32", None),
        (leaf("DTypePolicy", name="mixed_bfloat16"), "bfloat16"),
        (leaf("DTypePolicy", name="mixed_float16"), "float16"),
        ("bfloat16", "bfloat16"),
    ],
)
def test_policies(policy: Any, expected: str | None) -> None:
    dtype = "bfloat16" if policy == "bfloat16" else "float32"
    weights = [w.astype(jnp.dtype(dtype)) for w in GRU_WEIGHTS]
    config, variables = convert.from_keras(weights, keras(dtype=policy))
    assert config.get("dtype") == expected
    assert config.get("param_dtype", "float32") == dtype
    _, ys = registry.build(config).apply(variables, None, jnp.asarray(X))
    assert ys.dtype == (expected or "float32")


def test_dropout_between_layers() -> None:
    dropout = leaf("Dropout", rate=0.25)
    chain = graph(
        INPUT, ("a", keras(), ["input"]), ("d", dropout, ["a"]), ("b", keras(), ["d"]), ends=["b"]
    )
    for config in (model(keras(), dropout, keras()), chain):
        config, _ = convert.from_keras(TWO, config)
        assert config["name"] == "stack" and config["dropout_rate"] == 0.25
    config, _ = convert.from_keras(GRU_WEIGHTS, model(leaf("Dropout", rate=0.0), keras()))
    assert "dropout_rate" not in config


def test_paths_and_models_of_no_keras(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"got a PosixPath. Load the file with keras.models"):
        convert.from_keras(tmp_path)


def test_equal_options_are_one_function() -> None:
    slope = leaf("LeakyReLU", negative_slope=0.25)
    config, _ = convert.from_keras(TWO, model(keras(activation=slope), keras(activation=slope)))
    assert config["name"] == "stack"


@pytest.fixture
def library() -> Any:
    found = pytest.importorskip("keras")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield found


def built(layer: Any) -> Any:
    layer(X)
    rng = np.random.default_rng(4)
    layer.set_weights([0.4 * rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


LAYERS = [
    ("LeakyReLU", {"negative_slope": 0.01}),
    ("LeakyReLU", {"negative_slope": 0.3}),
    ("ELU", {"alpha": 1.0}),
    ("ELU", {"alpha": 0.5}),
    ("ReLU", {}),
    ("ReLU", {"max_value": 6.0}),
    ("ReLU", {"negative_slope": 0.1}),
    ("Softmax", {}),
    ("Activation", {"activation": "gelu"}),
]


def values(fn: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray((getattr(jax.nn, fn) if isinstance(fn, str) else fn)(x))


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_activations_are_the_same_functions(library: Any) -> None:
    x = np.linspace(-9, 9, 721, dtype=F32)[None]
    for name in sorted(activations._KERAS):
        theirs = np.asarray(library.activations.get(name)(x))
        np.testing.assert_allclose(
            values(activations.from_keras_name(name, ""), x), theirs, 1e-6, 1e-5, err_msg=name
        )
    for kind, options in LAYERS:
        layer = getattr(library.layers, kind)(**options)
        ours = activations.from_keras_name(library.saving.serialize_keras_object(layer), "")
        activations.require_keras(ours, "")
        np.testing.assert_allclose(values(ours, x), np.asarray(layer(x)), 1e-6, 1e-5)


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_layer_with_an_activation_that_has_no_name(library: Any) -> None:
    for activation in ("gelu", "leaky_relu", "exponential", "softmax"):
        layer = built(library.layers.GRU(4, activation=activation, return_sequences=True))
        config, variables = convert.from_keras(layer)
        _, ys = registry.build(config).apply(variables, None, X)
        assert_close(ys, layer(X))
        layer.set_weights(convert.to_keras(config, variables))
        assert_close(ys, layer(X))


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("form", ["Sequential", "Functional"])
def test_models(library: Any, form: str) -> None:
    layers = [library.layers.GRU(4, return_sequences=True) for _ in range(2)]
    layers.insert(1, library.layers.Dropout(0.25))
    network = library.Sequential([library.Input((None, 3)), *layers])
    if form == "Functional":
        start = ys = library.Input((None, 3))
        for layer in layers:
            ys = layer(ys)
        network = library.Model(start, ys)
    network = built_model(network)
    config, variables = convert.from_keras(network)
    assert config["dropout_rate"] == 0.25
    serialised = library.saving.serialize_keras_object(network)
    weights = [w for layer in layers for w in layer.get_weights() if w.dtype == F32]
    assert convert.from_keras(weights, serialised)[0] == config
    assert_close(reference.run(config, variables, X)[1], network(X))


def built_model(network: Any) -> Any:
    rng = np.random.default_rng(4)
    for layer in network.layers:
        if "gru" in layer.name:
            layer.set_weights([0.4 * rng.normal(size=w.shape) for w in layer.get_weights()])
    return network


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_subclasses(library: Any) -> None:
    class Named(library.layers.GRU):
        pass

    class Doubled(library.layers.GRU):
        def call(self, sequences, initial_state=None, mask=None, training=False):
            return 2 * super().call(sequences, initial_state, mask, training)

    class GRUCell(library.layers.GRUCell):
        def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
            return super().call(inputs, states, training=training)

    class Network(library.Model):
        def __init__(self) -> None:
            super().__init__()
            self.memory = library.layers.GRU(4, name="memory")

        def call(self, xs: Any) -> Any:
            return self.memory(xs)

    named = built(Named(4, return_sequences=True))
    config, variables = convert.from_keras(named)
    assert_close(reference.run(config, variables, X)[1], named(X))
    # Bidirectional makes its second layer from the config of the first.
    with library.saving.custom_object_scope({"Doubled": Doubled}):
        both = library.layers.Bidirectional(Doubled(4))
    for layer, words in (
        (Doubled(4), "Doubled, a GRU with a `call` of its own.*get_weights"),
        (both, "Doubled, a GRU with"),
        (library.layers.RNN(GRUCell(4)), "GRUCell, a GRUCell with a `call` of its own"),
        (Network(), "Network, a Model with.*'memory'"),
    ):
        layer(X)
        with pytest.raises(ConversionError, match=words):
            convert.from_keras(layer)
