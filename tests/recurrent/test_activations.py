"""Derivatives of the fused engine, whatever the activation does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.recurrent.testing.activations import RULES, SMOOTH, derivatives

from .layers import STRUCTURES, some, variables_of

T, B, D = 5, 3, 2
# A linear recurrence has no activation that one could choose.
GATED = [name for name, leaf in STRUCTURES.items() if hasattr(leaf.build(), "activation_fn")]
ALL = SMOOTH | RULES
QUICK = (
    *("a loop", "a conditional", "a mean over the batch", "a sort"),
    *("straight through", "a penalty in the backward pass", "clipping in the backward pass"),
)


def pairs():
    """Every layer with every activation; by default one layer with one of each kind."""
    for name in GATED:
        for activation in ALL:
            quick = name == "gru" and activation in QUICK
            marks = [] if quick else [pytest.mark.slow]
            yield pytest.param(name, activation, id=f"{name}-{activation}", marks=marks)


def built(name, activation, implementation):
    return STRUCTURES[name].build(
        implementation=implementation,
        activation_fn=ALL[activation],
        param_dtype=jnp.float64,
        carry_dtype=jnp.float64,
    )


@pytest.mark.parametrize(("name", "activation"), list(pairs()))
def test_first_and_second_derivatives(name, activation):
    with jax.enable_x64(True):
        xs = some((T, B, D), 2, jnp.float64)
        layers = [built(name, activation, each) for each in ("scan", "fused")]
        variables = variables_of(layers[0], xs)
        expected, got = (derivatives(layer, variables, xs) for layer in layers)
        assert jax.tree.structure(got) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            # Against the largest entry: every entry sums terms of that size, over time and batch,
            # and one in which they cancel is no more exact than they are.
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * (1 + np.abs(b).max()))


@pytest.mark.parametrize("activation", SMOOTH)
def test_finite_differences(activation):
    with jax.enable_x64(True):
        xs = some((T, B, D), 2, jnp.float64)
        layer = built("gru", activation, "fused")
        variables = variables_of(layer, xs)
        direction = some(xs.shape, 5, jnp.float64)

        def loss(size):
            return jnp.sum(jnp.sin(layer.apply(variables, None, xs + size * direction)[1]))

        slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
        np.testing.assert_allclose(jax.jit(jax.grad(loss))(0.0), slope, rtol=1e-6)
