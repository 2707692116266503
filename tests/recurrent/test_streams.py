"""Random streams of a cell: every step, layer and direction draws numbers of its own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from zoo.recurrent import DEPTH, TIME, scanned

from .cells import FLOATS, B, Decoder, H, Noise, T
from .layers import assert_same

XS = jnp.zeros_like(FLOATS)
SCANNED = scanned(Noise)
# Outputs are noise alone: kernels are zero. In a stack a layer adds what lies below.
LAYERS = {
    "alone": lambda **options: SCANNED(H, **options),
    "chunks": lambda **options: SCANNED(H, checkpoint_every=4, **options),
    "backwards": lambda **options: SCANNED(H, reverse=True, checkpoint_every=4, **options),
    "both directions": lambda **options: registry.build(
        "bidirectional", layer=SCANNED, features=H, **options
    ),
    "stack": lambda **options: registry.build(
        "stack", layer=SCANNED, features=H, num_layers=3, residual=True, **options
    ),
    "stack of both": lambda **options: registry.build(
        "stack",
        layer={"name": "bidirectional", "layer": SCANNED, "features": H},
        num_layers=3,
        residual=True,
        **options,
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_stream_of_the_cells_own(name):
    layer = LAYERS[name]()
    keys = jax.random.split(jax.random.key(0), 3)
    variables = layer.init({"params": keys[0], "noise": keys[1]}, None, XS)

    def run(**rngs):
        return layer.apply(variables, None, XS, rngs=rngs)[1]

    ys = run(noise=keys[1])
    # No two steps agree anywhere, nor do the halves of both directions.
    parts = list(ys) + ([ys[..., :H], ys[..., H:]] if ys.shape[-1] > H else [])
    for a, b in itertools.combinations(parts, 2):
        if a.shape == b.shape:
            assert not np.any(np.asarray(a) == np.asarray(b))
    assert_same(run(noise=keys[1]), ys)
    assert_same(run(noise=keys[1], params=keys[2]), ys)
    assert not np.any(np.asarray(run(noise=keys[2])) == np.asarray(ys))


def test_layers_of_a_stack_draw_different_numbers():
    layer, xs = LAYERS["stack"](), jnp.zeros((50, 20, 2))
    variables = layer.init(jax.random.key(0), None, xs)
    _, ys = layer.apply(variables, None, xs, rngs={"noise": jax.random.key(1)})
    # Three draws are added: of equal ones two, or all, would have a variance of 5, or 9.
    assert abs(float(jnp.var(ys)) - 3) < 0.5


def test_the_conventions_split_streams_of_any_name():
    for convention, params in ((TIME, {}), (DEPTH, {"length": T})):
        lifted = convention.lift(Noise, **params)(H)
        start = jnp.zeros((B, H))
        variables = lifted.init(jax.random.key(0), start, XS)
        _, ys = lifted.apply(variables, start, XS, rngs={"noise": jax.random.key(1)})
        for a, b in itertools.combinations(ys, 2):
            assert not np.any(np.asarray(a) == np.asarray(b))


def test_a_decoder_samples_with_its_own_key_alone():
    layer = scanned(Decoder)(features=H)
    state = jnp.zeros((64, H))
    carry, xs = ((state, state), jnp.zeros(64, int)), jnp.zeros((T, 64, 2))
    variables = layer.init(jax.random.key(0), carry, xs)
    _, (_, tokens) = layer.apply(variables, carry, xs, rngs={"lstm": jax.random.key(1)})
    _, (_, others) = layer.apply(variables, carry, xs, rngs={"lstm": jax.random.key(2)})
    assert np.mean(np.asarray(tokens) != np.asarray(others)) > 0.5
    assert np.mean(np.asarray(tokens[1:]) != np.asarray(tokens[:-1])) > 0.5
