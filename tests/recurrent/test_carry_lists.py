"""A carry whose tuples came back as lists, as checkpoints give them, goes in everywhere."""

from typing import Any

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent import convert

LSTM = {"name": "scan_lstm", "features": 2}
BOTH = {"name": "bidirectional", "layer": LSTM}
CONFIGS = {
    "leaf": LSTM,
    "bidirectional": BOTH,
    "stack": {"name": "stack", "num_layers": 2, "layer": LSTM},
    "stack of bidirectional": {"name": "stack", "num_layers": 2, "layer": BOTH},
    "stack of arrays": {"name": "stack", "num_layers": 2, "layer": "scan_gru", "features": 2},
    "layer norm": {"name": "scan_layer_norm_lstm", "features": 2},
}
XS = jnp.ones((4, 2, 3))


def lists(tree: Any) -> Any:
    return [lists(each) for each in tree] if isinstance(tree, tuple) else tree


def build(case: str) -> Any:
    if case == "scanned":
        from zoo.recurrent import scanned

        return scanned(nn.LSTMCell)(features=2)
    return registry.build(CONFIGS[case])


@pytest.mark.parametrize("case", [*CONFIGS, "scanned"])
def test_layers_take_lists(case: str) -> None:
    layer = build(case)
    variables = layer.init(jax.random.key(0), None, XS)
    carry, _ = layer.apply(variables, None, XS)
    assert jax.tree.structure(lists(carry)) != jax.tree.structure(carry)
    expected = layer.apply(variables, carry, XS)
    found = layer.apply(variables, lists(carry), XS)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    if "bidirectional" not in case:
        step = layer.apply(variables, lists(carry), XS[0], method="step")
        expected = layer.apply(variables, carry, XS[0], method="step")
        jax.tree.map(np.testing.assert_array_equal, step, expected)


@pytest.mark.parametrize("library", ["torch", "keras", "equinox", "linen", "nnx"])
@pytest.mark.parametrize("case", ["leaf", "bidirectional", "stack", "stack of bidirectional"])
def test_converters_take_lists(library: str, case: str) -> None:
    config = CONFIGS[case]
    layer = build(case)
    carry, _ = layer.apply(layer.init(jax.random.key(0), None, XS), None, XS)
    to, back = (getattr(convert, f"carry_{way}_{library}") for way in ("to", "from"))
    expected = to(config, carry)
    found = to(config, lists(carry))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    jax.tree.map(np.testing.assert_array_equal, back(config, lists(expected)), carry)


def test_what_is_no_carry_is_said_in_words() -> None:
    layer = build("leaf")
    variables = layer.init(jax.random.key(0), None, XS)
    carry, _ = layer.apply(variables, None, XS)
    cases = [
        (jax.tree.map(lambda x: x.tolist(), lists(carry)), "jnp.asarray on each"),
        (flax.serialization.to_state_dict(carry), "from_state_dict"),
        ([*carry, carry[0]], r"the pair \(c, h\)"),
    ]
    for given, words in cases:
        with pytest.raises(TypeError, match=words):
            layer.apply(variables, given, XS)
