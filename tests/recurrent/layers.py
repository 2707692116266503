"""The layers that the tests run over, and small helpers that all of them need."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import registry
from zoo.recurrent import RecurrentLayer, scanned
from zoo.recurrent.cell import LinearCell

from . import reference


class Leaf(NamedTuple):
    """A leaf layer: its registered name and options, and its equations in NumPy."""

    name: str
    options: dict[str, Any]
    step: Callable[..., Any]

    @property
    def implementations(self) -> tuple[str, ...]:
        """Those that the layer has."""
        linear = isinstance(self.build().cell, LinearCell)
        return ("scan", "fused", "parallel") if linear else ("scan", "fused")

    def build(self, **options: Any) -> RecurrentLayer:
        return registry.build(self.name, **{"features": 4, **self.options, **options})


def _leaf(name: str, **options: Any) -> Leaf:
    step = reference.STEPS.get(name)
    if step is None:
        step = reference.step_of(registry.build(name, **{"features": 4, **options}))
    return Leaf(name, options, reference.mgu_without_reset if "reset_gate" in options else step)


def _by_name(name: str) -> str:
    return name.removeprefix("scan_").replace("_", " ")


# Every registered layer whose inputs are vectors, and options that change an equation.
LEAVES: dict[str, Leaf] = {
    **{
        _by_name(name): _leaf(name)
        for name in registry.names("scan_*")
        if registry.build(name, features=4).feature_axes == 1
    },
    "lstm projected": _leaf("scan_lstm", projection=3, forget_bias=1.0),
    "lstm with peepholes": _leaf("scan_lstm", peepholes=True),
    "lstm with peepholes and coupled gates": _leaf(
        "scan_lstm", peepholes=True, coupled_gates=True, projection=3
    ),
    "mgu without reset gate": _leaf("scan_mgu", reset_gate=False),
    "gru without bias": _leaf("scan_gru", use_bias=False),
    "layer norm lstm projected": _leaf("scan_layer_norm_lstm", projection=3, use_bias=False),
    "min gru positive": Leaf("scan_min_gru", {"candidate": "positive"}, reference.min_gru_positive),
    "lru with more states": _leaf("scan_lru", state_features=5),
    "rg lru with blocks": _leaf("scan_rg_lru", heads=2, features=6),
}
HEADS: dict[str, Leaf] = {
    f"{name} with heads": leaf._replace(options={**leaf.options, "heads": 2, "features": 6})
    for name, leaf in LEAVES.items()
    if name in ("gru", "lstm", "simplified gru", "elman", "mgu", "slstm", "layer norm gru")
}

# One of every way in which a step is put together: for tables that are long in themselves.
STRUCTURES: dict[str, Leaf] = {
    name: LEAVES[name]
    for name in (
        *("gru", "lstm projected", "simplified gru", "layer norm lstm", "slstm", "indrnn", "cfc"),
        *("lstm with peepholes and coupled gates", "min gru", "s5", "rg lru"),
    )
}

# Whose rows of the tables run every day; the code of the others is theirs.
EVERY_DAY = ("gru", "lstm projected", "simplified gru", "slstm")


# What a composite passes on to the layer inside, so that the conformance kit may vary it.
PASSED_ON = frozenset(
    {
        *("name", "time_axis", "reverse", "implementation"),
        *("dtype", "param_dtype", "carry_dtype", "carry_init", "learned_carry"),
        *("dropout_rate", "recurrent_dropout_rate", "zoneout_rate"),
    }
)

COMPOSITES: dict[str, Callable[..., RecurrentLayer]] = {
    "bidirectional": functools.partial(
        registry.build, "bidirectional", layer="scan_gru", features=4
    ),
    "stack": functools.partial(
        registry.build, "stack", layer="scan_lstm", num_layers=3, features=4
    ),
    "stack of bidirectional": functools.partial(
        registry.build,
        "stack",
        layer={"name": "bidirectional", "layer": "scan_elman"},
        num_layers=2,
        features=4,
        residual=True,
        layer_norm=True,
    ),
}

COMPOSITES["stack of a list"] = functools.partial(
    registry.build,
    "stack",
    layers=[
        {"name": nn.Dense, "features": 3},
        "scan_gru",
        {"name": "scan_gru"},
        jnp.tanh,
        {"name": "scan_lstm", "forget_bias": 1.0},
    ],
    features=4,
    skip=True,
)

ScannedGRU = scanned(nn.GRUCell)


def some(shape: tuple[int, ...], seed: int = 0, dtype: Any = jnp.float32) -> jax.Array:
    """Normally distributed numbers; made by NumPy, which compiles nothing."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def inputs_for(layer: RecurrentLayer, steps: int, batch: int, features: int, **kind: Any) -> Any:
    """Some xs (T, B, *space, D); space is small."""
    space = (4, 3, 2)[: layer.feature_axes - 1]
    return some((steps, batch, *space, features), **kind)


def variables_of(layer: RecurrentLayer, xs: jax.Array, seed: int = 0) -> Any:
    """Variables with nothing zero in them: zero biases would hide mistakes."""
    drawn = layer.init(jax.random.key(seed), None, xs)
    return jax.tree.map(lambda x: x + 0.1 * some(x.shape, 1, x.dtype), drawn)


def assert_close(got: Any, expected: Any, tolerance: float = 1e-6) -> None:
    """Equal structures and shapes, and values within tolerance · (1 + |expected|)."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.shape(a) == np.shape(b)
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=tolerance, atol=tolerance
        )


def assert_same(got: Any, expected: Any) -> None:
    """Equal structures, shapes, dtypes and bits."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def finite(tree: Any) -> bool:
    return all(bool(np.isfinite(np.asarray(x)).all()) for x in jax.tree.leaves(tree))
