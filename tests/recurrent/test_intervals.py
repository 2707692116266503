"""Elapsed time between steps: what reads it, what hands it on, and what refuses it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent.layers.cfc import ScanCfC

from . import reference
from .layers import assert_close, assert_same, some, variables_of

T, B, D, H = 5, 3, 2, 4
XS = some((T, B, D))
ELAPSED = jnp.abs(some((T, B), 1)) + 0.1
CFC = {"name": "scan_cfc", "backbone_features": 6}


def test_a_plain_loop_computes_the_same():
    layer = registry.build(CFC, features=H)
    variables = variables_of(layer, XS)
    carry, ys = layer.apply(variables, None, XS, intervals=ELAPSED)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    h, expected = np.zeros((B, H)), []
    for x, elapsed in zip(np.asarray(XS), np.asarray(ELAPSED), strict=True):
        (h,) = reference.cfc(p, (h,), x, elapsed[:, None])
        expected.append(h)
    assert_close((carry, ys), (h, np.stack(expected)))


@pytest.mark.parametrize("implementation", ["scan", "fused"])
def test_gradients_by_intervals(implementation):
    with jax.enable_x64(True):
        layer = registry.build(
            CFC,
            features=H,
            implementation=implementation,
            param_dtype=jnp.float64,
            carry_dtype=jnp.float64,
        )
        xs, elapsed = XS.astype(jnp.float64), ELAPSED.astype(jnp.float64)
        variables = variables_of(layer, xs)
        direction = some((T, B), 7, jnp.float64)

        def loss(size):
            _, ys = layer.apply(variables, None, xs, intervals=elapsed + size * direction)
            return jnp.sum(jnp.sin(ys))

        slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
        np.testing.assert_allclose(jax.grad(loss)(0.0), slope, rtol=1e-7)


@pytest.mark.parametrize("time_axis", [1, -2])
def test_time_may_lie_elsewhere(time_axis):
    layer = registry.build(CFC, features=H)
    variables = variables_of(layer, XS)
    expected = layer.apply(variables, None, XS, intervals=ELAPSED)[1]
    moved = registry.build(CFC, features=H, time_axis=time_axis)
    _, ys = moved.apply(variables, None, XS.swapaxes(0, 1), intervals=ELAPSED.T)
    assert_close(ys, expected.swapaxes(0, 1))


def test_a_stack_hands_them_to_those_that_read_them():
    layer = registry.build("stack", layers=[CFC, "scan_gru", CFC], features=H)
    variables = variables_of(layer, XS)
    carry, ys = layer.apply(variables, None, XS, intervals=ELAPSED)
    below = XS
    for index, config in enumerate((CFC, "scan_gru", CFC)):
        one = registry.build(config, features=H)
        given = {"intervals": ELAPSED} if index != 1 else {}
        params = {"params": variables["params"][f"layers_{index}"]}
        if index == 2:
            params = variables_at(variables, "layers_2")
        _, below = one.apply(params, None, below, **given)
    assert_close(ys, below)
    stepped = None
    for x, elapsed in zip(XS, ELAPSED, strict=True):
        stepped, y = layer.apply(variables, stepped, x, elapsed, method="step")
    assert_close((stepped, y), (carry, ys[-1]))


def variables_at(variables, name):
    return {"params": variables["params"][name]}


def test_both_directions_read_them():
    layer = registry.build("bidirectional", layer=CFC, features=H)
    variables = variables_of(layer, XS)
    _, ys = layer.apply(variables, None, XS, intervals=ELAPSED)
    for side, reverse, own in (("forward", False, ys[..., :H]), ("backward", True, ys[..., H:])):
        one = registry.build(CFC, features=H, reverse=reverse)
        given = variables_at(variables, side)
        assert_close(one.apply(given, None, XS, intervals=ELAPSED)[1], own)


def test_equal_layers_scanned_over_depth_read_them():
    layer = registry.build("stack", layer=CFC, num_layers=3, features=H)
    variables = variables_of(layer, XS)
    plain, timed = (layer.apply(variables, None, XS, intervals=e)[1] for e in (None, ELAPSED))
    assert np.abs(plain - timed).max() > 1e-3
    ones = jnp.ones_like(ELAPSED)
    assert_close(layer.apply(variables, None, XS, intervals=ones)[1], plain)


def test_an_ensemble_takes_them_by_position():
    many = nn.vmap(
        ScanCfC,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(None, None, None, None, None, None, None),
        axis_size=2,
    )(features=H, backbone_features=6)
    call = (None, XS, None, None, None, True, ELAPSED)
    variables = many.init(jax.random.key(0), *call)
    _, ys = many.apply(variables, *call)
    one = ScanCfC(features=H, backbone_features=6)
    for k in range(2):
        own = jax.tree.map(lambda x, k=k: x[k], variables)
        assert_close(one.apply(own, None, XS, intervals=ELAPSED)[1], ys[k])


@pytest.mark.parametrize(
    "config",
    [
        {"name": "scan_gru"},
        {"name": "stack", "layer": "scan_gru", "num_layers": 2},
        {"name": "bidirectional", "layer": "scan_lstm"},
    ],
    ids=lambda config: config["name"],
)
def test_others_refuse_them_in_words(config):
    layer = registry.build(config, features=H)
    variables = layer.init(jax.random.key(0), None, XS)
    with pytest.raises(TypeError, match=r"intervals: expected None, .*scan_cfc"):
        layer.apply(variables, None, XS, intervals=ELAPSED)
    if layer.causal:
        with pytest.raises(TypeError, match=r"intervals: expected None"):
            layer.apply(variables, None, XS[0], ELAPSED[0], method="step")


def test_a_reset_of_one_row_of_an_slstm_is_a_start():
    layer = registry.build("scan_slstm", features=H, heads=2)
    variables = variables_of(layer, XS)
    resets = jnp.zeros((T, B), bool).at[2, 1].set(True)
    carry, ys = layer.apply(variables, None, XS, resets=resets)
    fresh = layer.apply(variables, None, XS[2:, 1:2])
    assert_close(ys[2:, 1:2], fresh[1])
    assert_close(jax.tree.map(lambda x: x[1:2], carry), fresh[0])
    others = layer.apply(variables, None, XS)[1]
    assert_same(ys[:, ::2], others[:, ::2])
    assert float(carry[1].min()) >= 1.0
