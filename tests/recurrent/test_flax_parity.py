"""The layers against ``nn.scan`` over Flax's own cells, and the plain functions against NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent import functional, scan_rnn_forward

from . import reference
from .layers import assert_close, assert_same, some

CELLS = {
    "scan_gru": nn.GRUCell,
    "scan_lstm": nn.LSTMCell,
    "scan_elman": nn.SimpleCell,
    "scan_mgu": nn.MGUCell,
}
SHAPES = [((5, 2, 3), 4), ((7, 6), 1), ((3, 2, 2, 1), 5)]


def by_hand(name, features):
    """What a user of Flax writes today."""
    scanned = nn.scan(
        CELLS[name], variable_broadcast="params", split_rngs={"params": False}, in_axes=0
    )
    return scanned(features=features)


def hand_carry(name, batch, features):
    zeros = jnp.zeros((*batch, features))
    return (zeros, zeros) if name == "scan_lstm" else zeros


def moved(tree):
    return jax.tree.map(lambda x: x + 0.1 * some(x.shape, 5), tree)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("shape", "features"), SHAPES)
@pytest.mark.parametrize("name", CELLS)
def test_parameters_are_those_of_nn_scan_bit_for_bit(name, shape, features, seed):
    xs, key = some(shape, seed), jax.random.key(seed)
    hand = by_hand(name, features)
    # The parameters depend on one step alone.
    expected = hand.init(key, hand_carry(name, shape[1:-1], features), xs[:1])
    assert_same(registry.build(name, features=features).init(key, None, xs), expected)


@pytest.mark.parametrize("implementation", ["fused", "scan"])
@pytest.mark.parametrize("name", CELLS)
def test_outputs_and_gradients_are_those_of_nn_scan(name, implementation):
    shape, features = (7, 2, 3), 4
    xs, key = some(shape), jax.random.key(0)
    hand = by_hand(name, features)
    layer = registry.build(name, features=features, implementation=implementation)
    start = jax.tree.map(lambda x: x + 0.3, hand_carry(name, shape[1:-1], features))
    variables = moved(layer.init(key, None, xs))

    def loss(apply):
        def run(variables, start, xs):
            carry, ys = apply(variables, start, xs)
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves((carry, ys))), (carry, ys)

        return jax.jit(jax.value_and_grad(run, argnums=(0, 1, 2), has_aux=True))

    (_, outputs), gradients = loss(layer.apply)(variables, start, xs)
    (_, wanted), expected = loss(hand.apply)(variables, start, xs)
    assert_close(outputs, wanted, 1e-6)
    assert_close(gradients, expected, 1e-5)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(("steps", "inputs", "hidden"), [(5, 3, 4), (1, 1, 1)])
def test_scan_rnn_forward_is_nn_scan_by_hand(seed, steps, inputs, hidden):
    x = some((steps, inputs), seed)
    hand = by_hand("scan_gru", hidden)
    variables = hand.init(jax.random.PRNGKey(seed), jnp.zeros(hidden), x)
    expected, _ = hand.apply(variables, jnp.zeros(hidden), x)
    got = scan_rnn_forward(seed, x, hidden)
    assert got.shape == (hidden,)
    assert_close(got, expected, 1e-6)


def test_scan_rnn_forward_under_jit_vmap_and_grad():
    x = some((2, 5, 3))
    one = [scan_rnn_forward(3, row, 4) for row in x]
    assert_close(jax.jit(lambda x: scan_rnn_forward(3, x, 4))(x[0]), one[0])
    assert_close(jax.vmap(lambda x: scan_rnn_forward(3, x, 4))(x), jnp.stack(one))
    direction = some((5, 3), 2)

    def loss(x):
        return jnp.sum(scan_rnn_forward(3, x, 4))

    slope = (loss(x[0] + 1e-2 * direction) - loss(x[0] - 1e-2 * direction)) / 2e-2
    assert_close(jnp.vdot(jax.grad(loss)(x[0]), direction), slope, 1e-3)


def numpy_sequence(params, h, inputs):
    """The four equations of the simplified GRU, one after another."""
    p = {name: np.asarray(x, np.float64) for name, x in params.items()}
    h, outputs = np.asarray(h, np.float64), []
    for x in np.asarray(inputs, np.float64):
        z = reference.sigmoid(p["Wz"] @ x + p["Uz"] @ h + p["bz"])
        r = reference.sigmoid(p["Wr"] @ x + p["Ur"] @ h + p["br"])
        candidate = np.tanh(p["Wh"] @ x + p["Uh"] @ (r * h) + p["bh"])
        h = (1 - z) * h + z * candidate
        outputs.append(h)
    return h, np.stack(outputs)


@pytest.mark.parametrize(("steps", "inputs", "hidden"), [(6, 3, 4), (1, 1, 2)])
def test_gru_sequence_is_the_four_equations(steps, inputs, hidden):
    params = moved(functional.initialize_gru_params(jax.random.key(1), inputs, hidden))
    h, xs = some((hidden,), 1), some((steps, inputs), 2)
    expected = numpy_sequence(params, h, xs)
    assert_close(functional.gru_sequence(params, h, xs), expected)
    assert_close(jax.jit(functional.gru_sequence)(params, h, xs), expected)
    step = functional.gru_step(params, h, xs[0])
    assert_close(step, (expected[1][0], expected[1][0]))


def test_gru_sequence_under_vmap_and_grad():
    params = moved(functional.initialize_gru_params(jax.random.key(1), 3, 4))
    h, xs = some((2, 4), 1), some((2, 6, 3), 2)
    finals, outputs = jax.vmap(functional.gru_sequence, in_axes=(None, 0, 0))(params, h, xs)
    for b in range(2):
        assert_close((finals[b], outputs[b]), numpy_sequence(params, h[b], xs[b]))

    def loss(params):
        return jnp.sum(functional.gru_sequence(params, h[0], xs[0])[1])

    gradient = jax.grad(loss)(params)
    for name, leaf in params.items():
        direction = np.asarray(some(leaf.shape, 3), np.float64)
        ends = []
        for size in (1e-5, -1e-5):
            nudged = {**params, name: np.asarray(leaf, np.float64) + size * direction}
            ends.append(numpy_sequence(nudged, h[0], xs[0])[1].sum())
        slope = (ends[0] - ends[1]) / 2e-5
        assert_close(np.vdot(gradient[name], direction), slope, 1e-5)


def test_gru_parameters_are_drawn_in_the_order_that_is_promised():
    params = functional.initialize_gru_params(jax.random.key(4), 3, 2)
    keys = jax.random.split(jax.random.key(4), 6)
    for key, name in zip(keys, ("Wz", "Uz", "Wr", "Ur", "Wh", "Uh"), strict=True):
        shape = (2, 3) if name[0] == "W" else (2, 2)
        assert_same(params[name], jax.random.normal(key, shape) * 0.01)
    for name in ("bz", "br", "bh"):
        assert_same(params[name], jnp.zeros(2))


def test_the_simplified_gru_layer_is_gru_sequence():
    params = moved(functional.initialize_gru_params(jax.random.key(1), 3, 4))
    h, xs = some((4,), 1), some((6, 3), 2)
    names = {"z": "z", "r": "r", "n": "h"}
    ours = {
        f"i{a}": {"kernel": params[f"W{b}"].T, "bias": params[f"b{b}"]} for a, b in names.items()
    }
    ours |= {f"h{a}": {"kernel": params[f"U{b}"].T} for a, b in names.items()}
    got = registry.build("scan_simplified_gru", features=4).apply({"params": ours}, h, xs)
    assert_close(got, functional.gru_sequence(params, h, xs))


@pytest.mark.parametrize("name", CELLS)
def test_jit_and_vmap_of_each_layer(name):
    xs = some((5, 2, 3))
    layer = registry.build(name, features=4)
    variables = moved(layer.init(jax.random.key(0), None, xs))
    carry, ys = layer.apply(variables, None, xs)
    assert_close(jax.jit(layer.apply)(variables, None, xs), (carry, ys))
    rows = jax.vmap(lambda xs: layer.apply(variables, None, xs), 1, (0, 1))(xs)
    assert_close(rows, (carry, ys))
    # Over variables, as for an ensemble.
    pair = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), variables)
    both = jax.vmap(lambda v: layer.apply(v, None, xs))(pair)
    assert_close(jax.tree.map(lambda x: x[0], both), (carry, ys))
    twice = layer.apply(jax.tree.map(lambda x: 2 * x, variables), None, xs)
    assert_close(jax.tree.map(lambda x: x[1], both), twice)
