"""Gradients do not depend on what was differentiated before, or with respect to what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from tests.rows import rows


@pytest.mark.parametrize("name", rows(["scan_gru", "scan_lstm", "scan_lru"], ["scan_gru"]))
def test_gradients_do_not_depend_on_what_was_differentiated_before(name):
    """JAX keeps traces of a derivative rule; what it knew of one call must not shape the next."""
    xs = jax.random.normal(jax.random.key(1), (6, 2, 3))
    fused = registry.build(name, features=4, implementation="fused")
    plain = registry.build(name, features=4, implementation="scan")
    variables = fused.init(jax.random.key(0), None, xs)

    def loss(layer):
        return lambda variables, xs: jnp.sum(layer.apply(variables, None, xs)[1] ** 2)

    expected = jax.grad(loss(plain), (0, 1))(variables, xs)
    jax.hessian(loss(fused), 1)(variables, xs)
    jax.grad(lambda xs: jnp.sum(jax.grad(loss(fused), 1)(variables, xs) ** 2))(xs)
    batch = jnp.stack([xs, xs + 1.0])
    jax.vmap(jax.grad(loss(fused), (0, 1)), (None, 0))(variables, batch)
    jax.grad(lambda v: jnp.sum(jax.vmap(lambda x: loss(fused)(v, x))(batch)))(variables)
    for transform in (lambda f: f, jax.checkpoint):
        gradient = jax.jit(jax.grad(transform(loss(fused)), (0, 1)))(variables, xs)
        jax.tree.map(
            lambda got, want: np.testing.assert_allclose(got, want, atol=5e-6), gradient, expected
        )
