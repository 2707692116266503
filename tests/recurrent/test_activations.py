"""Derivatives of the fused engine, whatever the activation does."""

import itertools

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
QUICK = ("a loop", "a mean over the batch", "straight through", "clipping in the backward pass")


def pairs():
    """A GRU with every activation, and every activation in one layer of another structure.

    What an activation does is told from its own program, whatever the step around it is.
    """
    others = itertools.cycle(name for name in GATED if name != "gru")
    for activation, other in zip(ALL, others, strict=False):
        for name in ("gru", other):
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
