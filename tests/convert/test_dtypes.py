"""Dtypes and configs of converted layers."""

import json
import warnings
from types import MappingProxyType
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent import convert

from . import golden
from .comparison import assert_same


def lstm(dtype: Any, features: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    sizes = {"weight_ih_l0": (4 * features, 3), "weight_hh_l0": (4 * features, features)}
    sizes |= {"bias_ih_l0": (4 * features,), "bias_hh_l0": (4 * features,)}
    return {key: rng.normal(size=size).astype(dtype) for key, size in sizes.items()}


CONFIGS = {
    "float16": {"param_dtype": "float16"},
    "bfloat16": {"param_dtype": "bfloat16"},
    "float32": {},
}


@pytest.mark.parametrize("dtype", CONFIGS)
def test_parameters_keep_their_dtype(dtype: str) -> None:
    config, variables = convert.from_torch(lstm(jnp.dtype(dtype)))
    assert config == {"name": "scan_lstm", "features": 4, **CONFIGS[dtype]}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(dtype)}
    built = registry.build(config).init(jax.random.key(0), None, jnp.ones((2, 3)))
    assert {leaf.dtype for leaf in jax.tree.leaves(built)} == {jnp.dtype(dtype)}
    back = convert.to_torch(config, variables)
    assert_same(convert.from_torch(back)[1], variables)


def test_float64_runs_in_float64() -> None:
    with jax.enable_x64(True):
        config, variables = convert.from_torch(lstm(np.float64))
        assert config["param_dtype"] == config["carry_dtype"] == "float64"
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float64)}
        layer = registry.build(config)
        (c, h), ys = layer.apply(variables, None, jnp.ones((2, 3), np.float64))
        assert c.dtype == h.dtype == ys.dtype == np.float64


def test_float64_without_64_bit_types_becomes_float32_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="float64 and become float32.*jax_enable_x64"):
        config, variables = convert.from_torch(lstm(np.float64))
    assert config == {"name": "scan_lstm", "features": 4}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


def test_warning_points_at_the_caller() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        convert.from_torch(lstm(np.float64))
    assert caught[0].filename == __file__


def test_arrays_are_copies() -> None:
    # Memory of this size and alignment is what JAX would share with NumPy.
    kernel = np.zeros(256 * 256 + 64, np.float32)
    start = (-kernel.ctypes.data % 64) // 4
    kernel = kernel[start : start + 256 * 256].reshape(256, 256)
    cell = {"i": {"kernel": kernel, "bias": kernel[0].copy()}, "h": {"kernel": kernel}}
    _, variables = convert.from_linen({"params": cell})
    kernel[:] = 5
    for name in "ih":
        np.testing.assert_array_equal(variables["params"][name]["kernel"], 0)


def test_configs_survive_json() -> None:
    for name, case in golden.every_case():
        config, _ = getattr(convert, f"from_{name}")(*case["arguments"], **case["options"])
        assert json.loads(json.dumps(config)) == config


CONFIG_OF = {
    ("torch", "gru", 1, 1): {"name": "scan_gru", "features": 4, "time_axis": 1},
    ("torch", "rnn_relu", 3, 2): {
        "name": "stack",
        "num_layers": 3,
        "layer": {
            "name": "bidirectional",
            "layer": {"name": "scan_elman", "features": 4, "activation_fn": "relu"},
        },
        "time_axis": 1,
    },
    ("torch", "lstm_proj", 1, 1): {
        "name": "scan_lstm",
        "features": 4,
        "projection": 3,
        "time_axis": 1,
    },
    ("equinox", "gru", 2, 1): {
        "name": "stack",
        "num_layers": 2,
        "layer": {"name": "scan_gru", "features": 4, "use_bias": False},
        "time_axis": 1,
    },
    ("keras", "gru_reset_before", 1, 1): {
        "name": "scan_simplified_gru",
        "features": 4,
        "time_axis": 1,
    },
    ("linen", "mgu_no_reset", 1, 1): {
        "name": "scan_mgu",
        "features": 4,
        "reset_gate": False,
        "time_axis": -2,
    },
    ("onnx", "rnn_relu", 1, 1): {"name": "scan_elman", "features": 4, "activation_fn": "relu"},
}


def test_configs_hold_what_differs_from_the_default() -> None:
    found = {}
    for name, case in golden.every_case():
        config, _ = getattr(convert, f"from_{name}")(*case["arguments"], **case["options"])
        shape = case["shape"]
        found[name, shape["cell"], shape["layers"], shape["directions"]] = config
    assert {key: found[key] for key in CONFIG_OF} == CONFIG_OF


def test_aliases_and_frozen_mappings() -> None:
    config, variables = convert.from_torch(lstm(np.float32))
    expected = convert.to_torch(config, variables)
    found = convert.to_torch(
        MappingProxyType({**config, "name": "lstm"}), flax.core.freeze(variables)
    )
    assert_same(jax.tree.map(np.asarray, found), jax.tree.map(np.asarray, expected))


def test_options_of_training_do_not_matter() -> None:
    config, variables = convert.from_torch(lstm(np.float32))
    trained = {**config, "dropout_rate": 0.1, "unroll": 4, "forget_bias": 1.0, "dtype": "bfloat16"}
    expected = convert.to_torch(config, variables)
    found = convert.to_torch({**trained, "gate_fn": jax.nn.sigmoid}, variables)
    assert_same(jax.tree.map(np.asarray, found), jax.tree.map(np.asarray, expected))


def test_state_dicts_can_be_written_to_and_saved() -> None:
    case = next(c for c in golden.load("torch") if c["shape"]["cell"] == "lstm_proj")
    config, variables = convert.from_torch(*case["arguments"], **case["options"])
    for array in map(np.asarray, convert.to_torch(config, variables).values()):
        # safetensors stores the memory as it lies, whatever the strides say.
        assert array.flags.c_contiguous and array.flags.writeable
