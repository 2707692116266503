"""A layer inside a Flax NNX model trains as it does in Linen, and streams."""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from flax.nnx import bridge

import registry
from tests.recurrent.layers import assert_close, some
from tests.rows import rows

from .layers import XS, build, gru, lstm, stack

TARGETS = some((*XS.shape[:2], 2), seed=1)
LAYERS = {"lstm": lstm(dropout_rate=0.1), "stack": stack(gru())}
SLOW_STACK = rows(LAYERS, ["lstm"])


class Model(nnx.Module):
    """A recurrent layer of the zoo below a linear one of NNX."""

    def __init__(self, config: dict[str, Any], rngs: nnx.Rngs):
        layer = registry.build(config)
        self.memory = bridge.ToNNX(layer, rngs=rngs)
        bridge.lazy_init(self.memory, None, XS)
        self.readout = nnx.Linear(layer.output_features, 2, rngs=rngs)

    def __call__(self, xs: jax.Array) -> jax.Array:
        _, ys = self.memory(None, xs)
        return self.readout(ys)


class Linen(nn.Module):
    """The same model in Linen."""

    config: dict[str, Any]

    @nn.compact
    def __call__(self, xs: jax.Array) -> jax.Array:
        _, ys = registry.build(self.config, name="memory")(None, xs)
        return nn.Dense(2, name="readout")(ys)


@pytest.mark.parametrize("name", SLOW_STACK)
def test_training_equals_training_in_linen(name: str) -> None:
    model = Model(LAYERS[name], nnx.Rngs(0))
    params = jax.tree.map(jnp.array, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)

    @nnx.jit
    def train(model: Model, optimizer: nnx.Optimizer) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean(jnp.square(m(XS) - TARGETS)))(model)
        optimizer.update(model, grads)
        return loss

    losses = [float(train(model, optimizer)) for _ in range(5)]
    assert all(after < before for before, after in itertools.pairwise(losses))

    linen, sgd = Linen(LAYERS[name]), optax.sgd(0.1, momentum=0.9)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        def loss(params):
            return jnp.mean(jnp.square(linen.apply({"params": params}, XS) - TARGETS))

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = sgd.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    state, in_linen = sgd.init(params), []
    for _ in losses:
        params, state, value = step(params, state)
        in_linen.append(float(value))
    assert_close(losses, in_linen, 1e-5)
    assert_close(nnx.to_pure_dict(nnx.state(model, nnx.Param)), params, 1e-4)


def test_streaming() -> None:
    linen = build(lstm())
    layer = bridge.ToNNX(linen, rngs=nnx.Rngs(0))
    bridge.lazy_init(layer, None, XS)
    expected, ys = layer(None, XS)

    @nnx.jit
    def step(layer: bridge.ToNNX, carry: Any, x: jax.Array) -> Any:
        return layer(carry, x, method="step")

    carry = linen.initialize_carry(None, XS[0].shape)
    for x, y in zip(XS, ys, strict=True):
        carry, found = step(layer, carry, x)
        assert_close(found, y, 1e-5)
    assert_close(carry, expected, 1e-5)
