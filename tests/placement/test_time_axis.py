"""A time axis that is spread over devices: linear layers take it, others refuse it in our words."""

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


def linear(name="scan_min_gru", **options):
    return registry.build(name, features=4, **options)


@pytest.mark.parametrize("name", ["scan_min_gru", "scan_lru", "bidirectional", "stack"])
@pytest.mark.parametrize("time_axis", [0, 1])
def test_linear_layers_take_it(mesh, name, time_axis):
    inner = {"layer": "scan_min_gru"} if "scan" not in name else {}
    inner |= {"num_layers": 3} if name == "stack" else {}
    layer = linear(name, time_axis=time_axis, **inner)
    xs = jax.random.normal(jax.random.key(1), (4, 4, 3))
    sharded = jax.device_put(xs, P("data", "more") if time_axis == 0 else P("more", "data"))
    variables = layer.init(jax.random.key(0), None, sharded)
    carry, ys = jax.jit(layer.apply)(variables, None, sharded)
    assert jax.typeof(ys).sharding.spec[time_axis] == "data"
    # A step has no time axis, and goes on from the carry.
    _, y = layer.apply(variables, carry, xs[0], method="step") if layer.causal else (None, ys)
    same, expected = layer.apply(variables, None, xs)
    assert jax.tree.all(jax.tree.map(lambda a, b: jnp.allclose(a, b, atol=1e-6), carry, same))
    assert jnp.allclose(ys, expected, atol=1e-6)
    assert y.shape == (4, ys.shape[-1]) or not layer.causal


@pytest.mark.parametrize(
    ("options", "method", "said"),
    [
        ({"implementation": "scan"}, "__call__", "implementation: expected 'auto', .* got 'scan'"),
        ({}, "carries", "carries: expected a time axis that is whole .*'data'"),
        ({}, "history", "carries: expected a time axis that is whole .*'data'"),
    ],
)
@pytest.mark.parametrize("explicit", [True, False])
def test_what_has_no_answer(mesh, options, method, said, explicit):
    layer = linear(**options, sequence_axis=None if explicit else "data")
    xs = jnp.zeros((4, 4, 3))
    variables = layer.init(jax.random.key(0), None, xs)

    def call(xs):
        return layer.apply(variables, None, xs, method=method)

    if not explicit:
        call = jax.shard_map(call, in_specs=P("data"), out_specs=P())
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(call, jax.device_put(xs, P("data")))


@pytest.mark.parametrize(
    ("axis", "specs", "said"),
    [
        ("tmie", (P("data"), P(), P()), "sequence_axis: expected .* 'data' or 'more', got 'tmie'"),
        ("data", (P(None, "more"), P(), P()), "xs: expected a part of time .*'data'.*same on all"),
        ("data", (P("data"), P("data"), P()), "carry: expected the same .*'data'.*varies"),
        ("data", (P("data"), P(), P("data")), "seq_lengths: expected the same .*'data'.*varies"),
    ],
)
@pytest.mark.parametrize("name", ["scan_min_gru", "stack"])
def test_parts_that_do_not_fit(mesh, name, axis, specs, said):
    options = {"layer": "scan_min_gru", "num_layers": 2} if name == "stack" else {}
    layer = linear(name, sequence_axis=axis, **options)
    xs, lengths = jnp.zeros((4, 4, 3)), jnp.full(4, 4)
    variables = layer.init(jax.random.key(0), None, xs)
    carry = jax.tree.map(jnp.zeros_like, layer.apply(variables, None, xs)[0])

    def call(xs, carry, lengths):
        return layer.apply(variables, carry, xs, seq_lengths=lengths)[1]

    xs, lengths = jax.device_put(xs, specs[0]), jax.device_put(lengths, specs[2])
    carry = jax.tree.map(lambda x: jax.device_put(x, specs[1]), carry)
    call = jax.shard_map(call, in_specs=specs, out_specs=P("data"))
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(call, xs, carry, lengths)


@pytest.mark.parametrize("spec", [P(("data", "more")), P("data", "more")])
def test_two_ways_at_once(mesh, spec):
    layer = linear(sequence_axis="data")
    xs = jnp.zeros((4, 4, 3))
    variables = layer.init(jax.random.key(0), None, xs)
    call = jax.shard_map(
        lambda xs: layer.apply(variables, None, xs)[1],
        in_specs=P("data"),
        out_specs=P("data"),
        axis_names={"data"},
    )
    with pytest.raises(ValueError, match=r"xs: expected .* either .* got both: 'data', 'more'"):
        jax.eval_shape(call, jax.device_put(xs, spec))


def test_layers_of_a_stack_share_time_out_alike():
    linear = {"name": "scan_lru", "features": 4, "sequence_axis": "data"}
    layer = registry.build("stack", layers=[linear, {"name": "scan_gru", "features": 4}])
    with pytest.raises(ValueError, match=r"sequence_axis: expected the same .*'data' and None"):
        layer.init(jax.random.key(0), None, jnp.zeros((4, 4, 3)))


@pytest.mark.parametrize("method", ["init", "init_with_output"])
@pytest.mark.parametrize("name", ["scan_min_gru", "stack"])
def test_parameters_are_made_inside_of_shard_map(mesh, name, method):
    options = {"layer": "scan_min_gru", "num_layers": 3} if name == "stack" else {}
    layer = linear(name, sequence_axis="data", **options)
    xs = jax.device_put(jnp.ones((4, 4, 3)), P("data"))

    def make(xs):
        made = getattr(layer, method)(jax.random.key(0), None, xs)
        return made if method == "init" else made[1]

    made = jax.jit(jax.shard_map(make, in_specs=P("data"), out_specs=P()))(xs)
    expected = layer.init(jax.random.key(0), None, xs)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, made, expected))


def test_outside_of_shard_map_time_is_whole():
    xs = jnp.ones((4, 4, 3))
    layer, other = linear(sequence_axis="data"), linear()
    variables = layer.init(jax.random.key(0), None, xs)
    assert jnp.array_equal(layer.apply(variables, None, xs)[1], other.apply(variables, None, xs)[1])
