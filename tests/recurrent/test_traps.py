"""Where recurrent layers are known to go wrong: every function shows that ours do not.

Cells that are lifted over time have a file of their own.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import registry
from zoo.recurrent.call.checks import ShapeError
from zoo.recurrent.testing import Case
from zoo.recurrent.testing.conditions import check_resets_stop_leaks

from .layers import assert_close, assert_same, finite, some, variables_of

T, B, D, H = 5, 3, 2, 4
XS = some((T, B, D))
LENGTHS = jnp.array([0, 3, T], jnp.int32)
PADDING = jnp.asarray(np.arange(T)[:, None] >= np.asarray(LENGTHS))


@pytest.fixture(scope="module")
def gru():
    return registry.build("scan_gru", features=H)


@pytest.fixture(scope="module")
def variables(gru):
    return variables_of(gru, XS)


# Padding and lengths


def test_length_zero_returns_the_carry_that_was_given(gru, variables):
    start = some((B, H), 1)
    carry, ys = gru.apply(variables, start, XS, seq_lengths=LENGTHS)
    assert_same(carry[0], start[0])
    assert not np.any(ys[:, 0])


def test_length_zero_returns_the_initial_carry_where_none_was_given():
    layer = registry.build("scan_lstm", features=H, learned_carry=True, reverse=True)
    variables = variables_of(layer, XS)
    initial = layer.apply(variables, None, XS.shape[1:], method="initialize_carry")
    carry, _ = layer.apply(variables, None, XS, seq_lengths=LENGTHS)
    for got, expected in zip(carry, initial, strict=True):
        assert_same(got[0], expected[0])
        assert np.any(expected[0]) and not np.array_equal(got[1], expected[1])


@pytest.mark.parametrize("batch", [(2, 3), (2, 2)])
def test_lengths_work_with_two_batch_axes(gru, variables, batch):
    xs, lengths = some((T, *batch, D)), jnp.arange(np.prod(batch)).reshape(batch) % T
    carry, ys = gru.apply(variables, None, xs, seq_lengths=lengths)
    flat = gru.apply(variables, None, xs.reshape(T, -1, D), seq_lengths=lengths.reshape(-1))
    assert carry.shape == (*batch, H)
    assert_close((carry.reshape(-1, H), ys.reshape(T, -1, H)), flat)


def test_a_length_beyond_the_sequence_is_an_error(gru, variables):
    with pytest.raises(ShapeError, match=r"\[0, T\]"):
        gru.apply(variables, None, XS, seq_lengths=LENGTHS + 1)


def test_a_traced_length_beyond_the_sequence_acts_as_the_whole(gru, variables):
    apply = jax.jit(lambda lengths: gru.apply(variables, None, XS, seq_lengths=lengths))
    assert_same(apply(LENGTHS + 100), apply(jnp.full(B, T, jnp.int32)))
    assert_same(apply(LENGTHS - 100), apply(jnp.zeros(B, jnp.int32)))


def test_a_narrow_dtype_of_lengths_counts_beyond_its_own_range(gru, variables):
    xs = jnp.ones((300, B, D))
    lengths = np.array([5, 200, 255])
    expected = gru.apply(variables, None, xs, seq_lengths=jnp.asarray(lengths, jnp.int32))
    assert_same(gru.apply(variables, None, xs, seq_lengths=lengths.astype(np.uint8)), expected)


def test_outputs_are_zero_in_padding(gru, variables):
    _, ys = gru.apply(variables, None, XS, seq_lengths=LENGTHS)
    assert np.all(np.asarray(ys)[np.asarray(PADDING)] == 0)
    assert np.all(np.asarray(ys)[~np.asarray(PADDING)] != 0)


@pytest.mark.parametrize("implementation", ["fused", "scan"])
def test_nan_in_padding_reaches_no_gradient(variables, implementation):
    layer = registry.build("scan_gru", features=H, implementation=implementation)

    @jax.jit
    def gradients(xs):
        def loss(variables, xs):
            carry, ys = layer.apply(variables, None, xs, seq_lengths=LENGTHS)
            return jnp.sum(carry) + jnp.sum(ys)

        return jax.value_and_grad(loss, argnums=(0, 1))(variables, xs)

    clean = gradients(XS)
    for bad in (jnp.nan, jnp.inf):
        spoilt = gradients(jnp.where(PADDING[..., None], bad, XS))
        assert finite(spoilt)
        assert_same(spoilt, clean)


@pytest.mark.parametrize("implementation", ["fused", "scan"])
def test_nan_before_a_reset_reaches_no_gradient_after_it(variables, implementation):
    layer = registry.build("scan_gru", features=H, implementation=implementation)
    resets = jnp.zeros((T, B), bool).at[3].set(True)

    @jax.jit
    def gradients(xs):
        def loss(variables, xs):
            carry, ys = layer.apply(variables, None, xs, resets=resets)
            return jnp.sum(carry) + jnp.sum(ys[3:])

        return jax.value_and_grad(loss, argnums=(0, 1))(variables, xs)

    clean, spoilt = gradients(XS), gradients(XS.at[1].set(jnp.nan))
    assert finite(spoilt)
    assert_same(spoilt, clean)


def stack(**options):
    return registry.build(
        "stack", **{"layer": "scan_elman", "features": H, "num_layers": 2, **options}
    )


def both_ways(merge, **options):
    return registry.build("bidirectional", layer="scan_elman", features=H, merge=merge, **options)


@pytest.mark.parametrize(
    "build",
    [
        functools.partial(stack, layer_norm=True, residual=True),
        functools.partial(both_ways, "mul"),
        functools.partial(both_ways, lambda forward, backward: jnp.tanh(forward) * backward),
        functools.partial(stack, layer={"name": "bidirectional", "layer": "scan_elman"}),
    ],
    ids=["norm between layers", "product of directions", "function of both", "both ways, twice"],
)
def test_nan_before_a_reset_reaches_no_gradient_of_a_composite(build):
    """What stands between layers has derivatives of its own, and they are NaN at NaN."""
    check_resets_stop_leaks(Case(build, XS, frozenset()))


def test_a_nan_before_a_reset_is_seen_until_then(gru, variables):
    resets = jnp.zeros((T, B), bool).at[3].set(True)
    _, ys = gru.apply(variables, None, XS.at[1, 0].set(jnp.nan), resets=resets)
    assert np.isnan(ys[1:3, 0]).all()
    assert np.isfinite(ys[3:]).all() and np.isfinite(ys[:, 1:]).all()


def test_lengths_do_not_keep_every_carry(full_compilation):
    """Memory of an LSTM's run: its cell states would be as much again as its outputs."""
    layer = registry.build("scan_lstm", features=64)
    xs = jax.ShapeDtypeStruct((512, 16, 64), jnp.float32)
    variables = jax.eval_shape(layer.init, jax.random.key(0), None, xs)
    lengths = jax.ShapeDtypeStruct((16,), jnp.int32)

    def temporaries(*more):
        def run(variables, xs, *lengths):
            return layer.apply(variables, None, xs, seq_lengths=lengths[0] if lengths else None)

        compiled = jax.jit(run).lower(variables, xs, *more).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    carries = 512 * 16 * 64 * 4
    assert temporaries(lengths) - temporaries() < 1.5 * carries


# Order and interface


def test_reversed_outputs_stay_in_the_order_of_the_inputs(gru, variables):
    backwards = registry.build("scan_gru", features=H, reverse=True)
    carry, ys = backwards.apply(variables, None, XS)
    expected = gru.apply(variables, None, XS[::-1])
    assert_close((carry, ys[::-1]), expected)
    assert_close(ys[0], carry)


def test_both_directions_have_parameters_of_their_own():
    layer = registry.build("bidirectional", layer="scan_gru", features=H)
    params = layer.init(jax.random.key(0), None, XS)["params"]
    forward, backward = (params[name]["ir"]["kernel"] for name in ("forward", "backward"))
    assert np.abs(forward - backward).max() > 1e-3


def test_the_carry_does_not_decide_the_width(gru):
    with pytest.raises(ShapeError, match="features decides it, not the carry"):
        gru.init(jax.random.key(0), jnp.zeros((B, H + 1)), XS)


def test_a_random_carry_is_another_one_for_another_key(variables):
    layer = registry.build("scan_gru", features=H, carry_init=nn.initializers.normal(1.0))
    ys = [
        layer.apply(variables, None, XS, rngs={"carry": jax.random.key(seed)})[1]
        for seed in range(2)
    ]
    assert np.abs(ys[0] - ys[1]).max() > 1e-2


def test_a_reset_belongs_to_the_step_that_it_lies_on(gru, variables):
    resets = jnp.zeros((T, B), bool).at[2].set(True)
    start = some((B, H), 1)
    _, ys = gru.apply(variables, start, XS, resets=resets)
    assert_close(ys[:2], gru.apply(variables, start, XS)[1][:2])
    assert_close(ys[2:], gru.apply(variables, None, XS[2:])[1])


# Types


@pytest.mark.parametrize("name", ["scan_gru", "scan_lstm", "scan_elman", "scan_mgu"])
def test_bfloat16_products_give_bfloat16_outputs(name):
    layer = registry.build(name, features=H, dtype=jnp.bfloat16)
    variables = jax.eval_shape(layer.init, jax.random.key(0), None, XS)
    carry, ys = jax.eval_shape(layer.apply, variables, None, XS)
    assert ys.dtype == jnp.bfloat16
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(carry))


def test_bfloat16_parameters_can_be_orthogonal():
    layer = registry.build("scan_gru", features=H, param_dtype=jnp.bfloat16)
    kernel = layer.init(jax.random.key(0), None, XS)["params"]["hr"]["kernel"]
    assert kernel.dtype == jnp.bfloat16
    unit = np.float32(kernel) @ np.float32(kernel).T
    np.testing.assert_allclose(unit, np.eye(H), atol=0.02)


def test_a_carry_of_another_dtype_is_cast(gru, variables):
    start = some((B, H), 1)
    carry, _ = gru.apply(variables, start.astype(jnp.bfloat16), XS)
    assert carry.dtype == jnp.float32
    assert_close(carry, gru.apply(variables, start, XS)[0], 0.02)
    for steps in (0, 1):
        assert gru.apply(variables, start.astype(jnp.float16), XS[:steps])[0].dtype == jnp.float32


def test_float64_inputs_meet_float32_parameters(gru, variables):
    with jax.enable_x64(True):
        carry, ys = jax.eval_shape(gru.apply, variables, None, jnp.asarray(XS, jnp.float64))
        assert (carry.dtype, ys.dtype) == (jnp.float32, jnp.float64)


# Sharding, on a mesh of one device: what goes wrong are types, not places


def differentiated(layer, variables):
    def loss(variables, xs):
        carry, ys = layer.apply(variables, None, xs)
        return jnp.sum(carry) + jnp.sum(ys)

    return jax.value_and_grad(loss, argnums=(0, 1))


@pytest.mark.parametrize("implementation", ["fused", "scan"])
def test_a_layer_runs_inside_shard_map(variables, implementation):
    layer = registry.build("scan_gru", features=H, implementation=implementation)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))

    def local(variables, xs):
        value, (by_variables, by_xs) = differentiated(layer, variables)(variables, xs)
        return jax.lax.psum(value, "data"), by_variables, by_xs

    specs = P(), P(None, "data")
    run = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=(P(), *specs))
    value, by_variables, by_xs = jax.jit(run)(variables, XS)
    expected = jax.jit(differentiated(layer, variables))(variables, XS)
    assert_close((value, (by_variables, by_xs)), expected, 1e-5)


@pytest.mark.parametrize("implementation", ["fused", "scan"])
def test_a_layer_runs_under_an_explicit_mesh(variables, implementation):
    layer = registry.build("scan_gru", features=H, implementation=implementation)
    expected = jax.jit(differentiated(layer, variables))(variables, XS)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        xs = jax.device_put(XS, NamedSharding(mesh, P(None, "data")))
        got = jax.jit(differentiated(layer, variables))(variables, xs)
    assert_close(got, expected, 1e-5)


def test_a_sharded_time_axis_is_refused_in_words(gru, variables):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        xs = jax.device_put(XS, NamedSharding(mesh, P("data")))
        with pytest.raises(ValueError, match=r"time axis .* is sharded over the mesh axis 'data'"):
            jax.jit(gru.apply)(variables, None, xs)
