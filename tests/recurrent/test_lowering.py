"""Every layer lowers for a GPU on a machine that has none."""

import jax
import jax.numpy as jnp
import pytest

import registry

from .layers import some

NAMES = [name for name in registry.names("scan_*")]


@pytest.mark.parametrize("implementation", ["scan", "fused"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_lower_for_cuda(name, implementation):
    layer = registry.build(name, features=4, implementation=implementation)
    xs = some((6, 3, *(4,) * (layer.feature_axes - 1), 5))
    resets, lengths = jnp.zeros((6, 3), bool), jnp.full((3,), 6)
    variables = jax.eval_shape(layer.init, jax.random.key(0), None, xs)

    def loss(variables, xs):
        _, ys = layer.apply(variables, None, xs, resets=resets, seq_lengths=lengths)
        return jnp.sum(ys * ys)

    lowered = (
        jax.jit(jax.grad(loss, (0, 1))).trace(variables, xs).lower(lowering_platforms=("cuda",))
    )
    assert "stablehlo.while" in lowered.as_text()
