"""The modules that these tests run over."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

import registry
from tests.recurrent.layers import some
from zoo.recurrent.nnx import Recurrent, build

T, B, D, H = 6, 3, 5, 4
XS = some((T, B, D))

# What a registered name needs besides the width.
_NEEDS = {
    "bidirectional": {"layer": "scan_gru"},
    "stack": {"layer": "scan_lstm", "num_layers": 3},
}


def config(name: str, **options: Any) -> dict[str, Any]:
    """A small layer of a registered name, for ``registry.build``."""
    return {"name": name, "features": H, **_NEEDS.get(name, {}), **options}


def module(name: str = "scan_gru", seed: int = 0, **options: Any) -> Recurrent:
    return build(config(name, **options), D, rngs=nnx.Rngs(seed))


def inputs(name: str) -> jax.Array:
    """Inputs for a registered layer, (T, B, *space, D)."""
    space = registry.build(config(name)).feature_axes - 1
    return some((T, B, *(4,) * space, D))


def params(module: nnx.Module) -> Any:
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))


def paths(module: nnx.Module, kind: Any = ...) -> set[str]:
    """The paths of the state of a module."""
    flat = nnx.to_flat_state(nnx.state(module, kind))
    return {"/".join(map(str, path)) for path, _ in flat}


class NoisyCell(nn.RNNCellBase):
    """A cell with a random stream of its own, and a parameter with a given name."""

    features: int
    inner: str = "dense"
    num_feature_axes = 1

    @nn.compact
    def __call__(self, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = nn.Dense(self.features, name=self.inner)(jnp.concatenate([h, x], -1))
        if self.has_rng("noise") or self.inner == "needs_noise":
            y += jax.random.normal(self.make_rng("noise"), y.shape)
        return y, y

    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros((*input_shape[:-1], self.features))
