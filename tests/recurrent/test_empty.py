"""Batches of no rows, and sequences of no steps: values, gradients and conditions."""

import itertools

import jax
import jax.numpy as jnp
import pytest

import registry

from .layers import LEAVES, STRUCTURES, some, variables_of

D = 4
OPTIONS = {
    **{
        f"{name}, {how}": (name, {"implementation": how})
        for name, leaf in STRUCTURES.items()
        for how in leaf.implementations[1:]
    },
    "gru, scan": ("gru", {"implementation": "scan"}),
    "gru, fused, checkpoints": ("gru", {"implementation": "fused", "checkpoint_every": 2}),
    "gru, scan, checkpoints": ("gru", {"implementation": "scan", "checkpoint_every": 2}),
    "lstm projected, learned": ("lstm projected", {"learned_carry": True}),
    "gru, dropouts": ("gru", {"dropout_rate": 0.5, "zoneout_rate": 0.5}),
}
# (T, *batch)
SHAPES = [(5, 0), (5, 0, 2), (5, 3, 0), (1, 0), (0, 0), (0, 3)]


def build(name):
    leaf, options = OPTIONS[name]
    return LEAVES[leaf].build(**options)


def rows():
    """Every layer without rows and without steps; a few of them in every other way, too."""
    for name, shape in itertools.product(OPTIONS, SHAPES):
        quick = name in ("gru", "lru") or shape in ((5, 0), (0, 3))
        marks = [] if quick else [pytest.mark.slow]
        yield pytest.param(name, shape, id=f"{name}-{shape}", marks=marks)


@pytest.mark.parametrize(("name", "shape"), list(rows()))
def test_nothing_in_and_nothing_out(name, shape):
    layer = build(name)
    variables = variables_of(layer, some((5, 3, D)))
    xs = jnp.zeros((*shape, D))
    given = {
        "seq_lengths": jnp.zeros(shape[1:], int),
        "mask": jnp.ones(shape, bool),
        "resets": jnp.ones(shape, bool),
    }
    for conditions in ({}, given):

        def loss(variables, xs, conditions=conditions):
            carry, ys = layer.apply(
                variables,
                None,
                xs,
                deterministic=False,
                rngs={"dropout": jax.random.key(0)},
                **conditions,
            )
            # With no steps the carry is the initial one, which may be learned.
            return jnp.sum(ys), (carry, ys)

        (_, (carry, ys)), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(variables, xs)
        assert ys.shape == (*shape, layer.output_features)
        spec = layer.carry_spec((*shape[1:], D))
        assert jax.tree.map(jnp.shape, carry) == jax.tree.map(lambda x: x.shape, spec)
        assert all(not jnp.any(g) for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize("name", ["gru, fused", "lstm projected, fused"])
def test_a_history_of_nothing(name):
    layer = build(name)
    variables = variables_of(layer, some((5, 3, D)))
    history = layer.apply(variables, None, jnp.zeros((5, 0, D)), method="carries")
    assert {x.shape[:2] for x in jax.tree.leaves(history)} == {(6, 0)}


def test_time_may_be_anywhere():
    layer = registry.build("scan_gru", features=3, time_axis=1)
    variables = variables_of(layer, some((2, 5, D)))
    gradients = jax.grad(lambda v: jnp.sum(layer.apply(v, None, jnp.zeros((0, 5, D)))[1]))(
        variables
    )
    assert all(not jnp.any(g) for g in jax.tree.leaves(gradients))
