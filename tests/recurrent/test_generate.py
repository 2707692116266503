"""Outputs that are fed back: as a loop over steps, for layers and for plain functions."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent import functional

from .layers import ScannedGRU, assert_close, some, variables_of

X = some((3, 4))

LAYERS = {
    "gru": functools.partial(registry.build, "scan_gru", features=4),
    "lstm": functools.partial(registry.build, "scan_lstm", features=4, learned_carry=True),
    "lru": functools.partial(registry.build, "scan_lru", features=4),
    "a cell of Flax's": functools.partial(ScannedGRU, features=4),
    "stack": functools.partial(
        registry.build,
        "stack",
        layers=[
            {"name": "scan_lstm", "features": 5},
            nn.tanh,
            {"name": nn.Dense, "features": 4},
            {"name": "scan_gru", "features": 4},
        ],
    ),
}


def step_of(layer, variables):
    return functools.partial(layer.apply, variables, method="step")


def by_hand(step, carry, x, steps, feed):
    ys = []
    for _ in range(steps):
        carry, y = step(carry, x)
        x = feed(y)
        ys.append(y)
    return carry, jnp.stack(ys)


@pytest.mark.parametrize("name", LAYERS)
def test_is_a_loop_over_steps(name):
    layer = LAYERS[name]()
    variables = variables_of(layer, X[None])

    def total(run, variables, x):
        feed = lambda y: 2.0 * jnp.tanh(y)  # noqa: E731
        carry, ys = run(step_of(layer, variables), None, x, 4, feed=feed)
        return jnp.sum(ys**2) + sum(map(jnp.sum, jax.tree.leaves(carry))), (carry, ys)

    def both(run):
        return jax.value_and_grad(functools.partial(total, run), argnums=(0, 1), has_aux=True)

    found = jax.jit(both(functional.generate))(variables, X)
    assert_close(found, jax.jit(both(by_hand))(variables, X), 1e-5)
    assert found[0][1][1].shape == (4, 3, 4)


def test_goes_on_from_its_carry():
    layer = LAYERS["lstm"]()
    step = step_of(layer, variables_of(layer, X[None]))
    carry, ys = functional.generate(step, None, X, 5)
    half, first = functional.generate(step, None, X, 2)
    last, second = functional.generate(step, half, first[-1], 3)
    assert_close((last, jnp.concatenate([first, second])), (carry, ys))


def test_without_steps_the_carry_comes_back():
    layer = LAYERS["gru"]()
    step = step_of(layer, variables_of(layer, X[None]))
    carry, ys = functional.generate(step, X, X, 0)
    assert carry is X and ys.shape == (0, 3, 4) and ys.dtype == X.dtype


def test_trees_are_fed_back_and_a_key_is_carried():
    def step(carry, x):
        key, now = jax.random.split(carry)
        noise = jax.random.normal(now, x["a"].shape)
        return key, {"next": x["a"] + noise, "noise": noise}

    start = {"a": jnp.zeros(2)}
    feed = lambda y: {"a": y["next"]}  # noqa: E731
    _, ys = functional.generate(step, jax.random.key(0), start, 6, feed=feed)
    assert_close(ys["next"], jnp.cumsum(ys["noise"], axis=0))
    assert len(np.unique(ys["noise"])) == 12


def test_on_a_mesh_a_zero_carry_becomes_that_of_the_data():
    layer = LAYERS["gru"]()
    variables = variables_of(layer, X[None])
    spec = jax.P("data")
    with jax.set_mesh(jax.make_mesh((1,), ("data",))):

        def local(x):
            return functional.generate(step_of(layer, variables), jnp.zeros((3, 4)), x, 3)

        found = jax.jit(jax.shard_map(local, in_specs=spec, out_specs=(spec, jax.P(None, "data"))))(
            jax.device_put(X, spec)
        )
    assert_close(found, functional.generate(step_of(layer, variables), None, X, 3))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"steps": -1}, ValueError, "steps: expected 0 or more, got -1"),
        ({"steps": 2.0}, TypeError, "steps: expected an int, got 2.0"),
        ({"steps": True}, TypeError, "steps: expected an int, got True"),
        ({"step": lambda c, x: x}, TypeError, r"expected a function that returns \(carry, y\)"),
        ({"step": lambda c, x: (c, x, x)}, TypeError, "got one that returns a tuple of 3"),
        ({"feed": lambda y: y[:, :2]}, ValueError, r"shape of first, \(3, 4\), got \(3, 2\)"),
        ({"feed": lambda y: y.astype("bfloat16")}, TypeError, "float32, got bfloat16"),
        ({"feed": lambda y: (y, y)}, TypeError, "feed: expected the structure of first"),
    ],
)
def test_wrong_arguments_are_refused_in_words(change, error, words):
    given = {"step": lambda c, x: (c, x), "carry": X, "first": X, "steps": 2} | change
    with pytest.raises(error, match=words):
        functional.generate(**given)


def test_a_traced_number_of_steps_is_refused():
    with pytest.raises(TypeError, match="a number that jit has traced"):
        jax.jit(lambda n: functional.generate(lambda c, x: (c, x), X, X, n))(3)
