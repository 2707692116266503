"""A plugin of somebody else's distribution, built by name and put to the contract."""

import functools

import jax
import jax.numpy as jnp

import registry
from zoo.recurrent.testing import check_layer

LEAKY = """
import flax.linen as nn
import jax.numpy as jnp
from zoo.recurrent import scanned


class LeakyCell(nn.RNNCellBase):
    features: int
    leak: float = 0.5

    @nn.compact
    def __call__(self, h, x):
        new = nn.tanh(nn.Dense(self.features)(x) + nn.Dense(self.features, use_bias=False)(h))
        h = (1 - self.leak) * h + self.leak * new
        return h, h

    def initialize_carry(self, rng, input_shape):
        return jnp.zeros((*input_shape[:-1], self.features))

    num_feature_axes = 1


LeakyLayer = scanned(LeakyCell)
"""

# Dear and, for what `scanned` makes, run elsewhere.
ELSEWHERE = ("check_dtypes", "check_parents", "check_time_axis", "check_batch_axes")


def test_an_installed_plugin_keeps_the_contract(install):
    install(
        "acme-layers",
        '"acme.scan_leaky" = "acme_leaky:LeakyLayer"\n'.replace('"', ""),
        acme_leaky=LEAKY,
    )
    assert "acme.scan_leaky" in registry.names()
    xs = jax.random.normal(jax.random.key(0), (5, 3, 2))
    build = functools.partial(registry.build, "acme.scan_leaky", features=4)
    check_layer(build, xs, options=("leak", "time_axis", "reverse", "name"), skip=ELSEWHERE)
    stack = registry.build("stack", layer="acme.scan_leaky", features=4, num_layers=2)
    _, ys = stack.apply(stack.init(jax.random.key(0), None, xs), None, xs)
    assert ys.shape == (5, 3, 4) and bool(jnp.all(jnp.isfinite(ys)))
