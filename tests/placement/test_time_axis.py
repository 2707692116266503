"""A time axis that is spread over devices is refused in our own words."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

import registry
from zoo.recurrent import scanned

LAYERS = {
    "leaf": lambda **options: registry.build("scan_lstm", features=4, **options),
    "bidirectional": lambda **options: registry.build(
        "bidirectional", layer="scan_gru", features=4, **options
    ),
    "stack": lambda **options: registry.build(
        "stack", layer="scan_gru", num_layers=2, features=4, **options
    ),
    "scanned": lambda **options: scanned(nn.GRUCell)(features=4, **options),
}


@pytest.fixture
def mesh():
    mesh = jax.make_mesh((1, 1), ("data", "more"))
    with jax.set_mesh(mesh):
        yield mesh


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("time_axis", "spec", "said"),
    [
        (0, P("data"), r"\(0\).*'data'\. .*jax\.P\(None, None, None\)"),
        (0, P(("data", "more")), r"\(0\).*\('data', 'more'\)\. .*jax\.P\(None, None, None\)"),
        (1, P("more", "data"), r"\(1\).*'data'\. .*jax\.P\('more', None, None\)"),
        (-2, P("more", "data"), r"\(1\).*'data'\. .*jax\.P\('more', None, None\)"),
    ],
)
def test_a_sharded_time_axis(mesh, name, time_axis, spec, said):
    layer = LAYERS[name](time_axis=time_axis)
    xs = jax.device_put(jnp.zeros((4, 4, 3)), spec)
    with pytest.raises(ValueError, match=f"xs: expected a time axis {said}"):
        jax.eval_shape(layer.init_with_output, jax.random.key(0), None, xs)


@pytest.mark.parametrize("name", LAYERS)
def test_a_time_axis_that_is_whole_is_fine(mesh, name):
    layer = LAYERS[name](time_axis=1)
    xs = jax.device_put(jnp.zeros((4, 5, 3)), P("data"))
    (_, ys), _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), None, xs)
    assert ys.shape[:2] == (4, 5)
    assert ys.sharding.spec[0] == "data"
