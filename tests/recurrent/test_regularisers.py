"""Dropouts and zoneout: what they do, when, and the same in both implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry

from . import reference
from .layers import assert_close, assert_same, some, variables_of

T, B, D, H = 6, 4, 3, 5
XS = some((T, B, D))
RNGS = {"dropout": jax.random.key(1)}
RATES = ("dropout_rate", "recurrent_dropout_rate", "zoneout_rate")


def built(name="scan_gru", **options):
    layer = registry.build(name, features=H, **options)
    return layer, variables_of(registry.build(name, features=H), XS)


@pytest.mark.parametrize("rate", RATES[:2])
def test_dropouts_are_off_unless_deterministic_is_false(rate):
    layer, variables = built(**{rate: 0.5})
    plain, _ = built()
    expected = plain.apply(variables, None, XS)
    assert_same(layer.apply(variables, None, XS), expected)
    assert_same(layer.apply(variables, None, XS, rngs=RNGS), expected)
    dropped = layer.apply(variables, None, XS, deterministic=False, rngs=RNGS)
    assert np.abs(dropped[1] - expected[1]).max() > 1e-2


@pytest.mark.parametrize("rate", RATES)
def test_the_key_decides(rate):
    layer, variables = built(**{rate: 0.5})

    def ys(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return layer.apply(variables, None, XS, deterministic=False, rngs=rngs)[1]

    assert_same(ys(1), ys(1))
    assert np.abs(ys(1) - ys(2)).max() > 1e-2
    with pytest.raises(Exception, match="dropout"):
        layer.apply(variables, None, XS, deterministic=False)


@pytest.mark.parametrize("name", ["scan_gru", "scan_lstm"])
def test_both_implementations_drop_the_same(name):
    rates = dict.fromkeys(RATES, 0.4)

    def run(implementation):
        layer, variables = built(name, implementation=implementation, **rates)

        def loss(variables):
            out = layer.apply(variables, None, XS, deterministic=False, rngs=RNGS)
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(out)), out

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)

    assert_close(run("fused"), run("scan"), 1e-5)


def test_input_dropout_is_drawn_for_every_step_and_keeps_the_mean():
    """Seen through a linear layer: ys are the dropped inputs, scaled."""
    layer = registry.build(
        "scan_elman",
        features=D,
        activation_fn=lambda x: x,
        dropout_rate=0.25,
        kernel_init=lambda *_: jnp.eye(D),
        recurrent_kernel_init=jax.nn.initializers.zeros,
    )
    xs = jnp.ones((400, 10, D))
    variables = layer.init(jax.random.key(0), None, xs)
    _, ys = layer.apply(variables, None, xs, deterministic=False, rngs=RNGS)
    values = np.unique(np.asarray(ys))
    np.testing.assert_allclose(values, [0.0, 1 / 0.75], rtol=1e-6)
    assert abs(float(ys.mean()) - 1.0) < 0.02
    assert np.any(ys[0] != ys[1])


def test_recurrent_dropout_has_one_mask_per_sequence():
    """Seen through h' = 1 + h ⊙ mask: an element is kept at every step or at none."""
    layer = registry.build(
        "scan_elman",
        features=H,
        activation_fn=lambda x: x + 1.0,
        recurrent_dropout_rate=0.5,
        kernel_init=jax.nn.initializers.zeros,
        recurrent_kernel_init=lambda *_: jnp.eye(H),
    )
    xs = jnp.zeros((4, 50, D))
    variables = layer.init(jax.random.key(0), None, xs)
    _, ys = layer.apply(variables, None, xs, deterministic=False, rngs=RNGS)
    ys = np.asarray(ys)
    kept = ys[1] != 1.0
    assert 0.4 < kept.mean() < 0.6
    for t in range(1, 4):
        np.testing.assert_allclose(ys[t], np.where(kept, 1 + 2 * ys[t - 1], 1.0))
    # Every sequence and every element has its own.
    assert len(np.unique(kept, axis=0)) > 10


def test_zoneout_keeps_elements_of_the_old_state_in_training():
    layer, variables = built("scan_gru", zoneout_rate=0.5)
    history = layer.apply(variables, None, XS, deterministic=False, rngs=RNGS, method="carries")
    history = np.asarray(history)
    held = history[1:] == history[:-1]
    assert 0.35 < held.mean() < 0.65
    # What is not held is what the cell computes from the state before.
    plain, _ = built("scan_gru")
    new = np.stack([plain.apply(variables, history[t], XS[t], method="step")[1] for t in range(T)])
    assert_close(history[1:], np.where(held, history[:-1], new), 1e-5)


@pytest.mark.parametrize("name", ["scan_gru", "scan_lstm"])
def test_zoneout_mixes_in_evaluation(name):
    layer, variables = built(name, zoneout_rate=0.3)
    carry, ys = layer.apply(variables, None, XS)
    start = (np.zeros((B, H)),) * (2 if name == "scan_lstm" else 1)
    wanted = reference.run(reference.STEPS[name], variables["params"], XS, start, zoneout=0.3)
    assert_close(ys, wanted.ys, 1e-6)
    assert_close(jax.tree.leaves(carry), list(wanted.carry), 1e-6)
    # A step and a reset after which it is taken mix as a call does.
    _, y = layer.apply(variables, None, XS[0], method="step")
    assert_close(y, ys[0], 1e-6)


def test_zoneout_in_evaluation_is_the_mean_of_training():
    layer, variables = built("scan_gru", zoneout_rate=0.4)
    xs = jnp.broadcast_to(XS[:1, :1], (1, 4000, D))
    start = jnp.broadcast_to(some((H,), 5), (4000, H))
    _, drawn = layer.apply(variables, start, xs, deterministic=False, rngs=RNGS)
    _, mixed = layer.apply(variables, start, xs)
    assert_close(drawn.mean(axis=1), mixed[:, 0], 0.03)


def test_a_skipped_step_is_skipped_with_dropouts_too():
    layer, variables = built(**dict.fromkeys(RATES, 0.4))
    mask = jnp.ones((T, B), bool).at[2].set(False).at[3, 0].set(False)
    for bad in (jnp.nan, jnp.inf):
        spoilt = jnp.where(mask[..., None], XS, bad)
        out = [
            layer.apply(variables, None, xs, mask=mask, deterministic=False, rngs=RNGS)
            for xs in (XS, spoilt)
        ]
        assert_same(out[1], out[0])
    assert not np.any(out[0][1][2])


def test_dropout_between_the_layers_of_a_stack():
    options = {"layer": "scan_gru", "num_layers": 3, "features": H}
    layer = registry.build("stack", dropout_rate=0.5, **options)
    plain = registry.build("stack", **options)
    variables = variables_of(plain, XS)
    expected = plain.apply(variables, None, XS)
    assert_same(layer.apply(variables, None, XS), expected)
    carry, ys = layer.apply(variables, None, XS, deterministic=False, rngs=RNGS)
    assert_same(carry[0], expected[0][0])
    assert np.abs(ys - expected[1]).max() > 1e-3
