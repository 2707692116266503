"""A stored rollout, replayed in one call with resets, gives what stepping through it gave."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry

from .layers import COMPOSITES, ScannedGRU, assert_close, some, variables_of

T, B, D = 9, 3, 2
KEY = {"carry": jax.random.key(5)}

LAYERS = {
    "gru": functools.partial(registry.build, "scan_gru", features=4),
    "lstm": functools.partial(registry.build, "scan_lstm", features=4),
    "lstm, learned carry": functools.partial(
        registry.build, "scan_lstm", features=4, learned_carry=True, implementation="scan"
    ),
    "gru, random carry": functools.partial(
        registry.build, "scan_gru", features=4, carry_init=nn.initializers.normal(1.0)
    ),
    "stack": COMPOSITES["stack"],
    "stack, learned carry": functools.partial(COMPOSITES["stack"], learned_carry=True),
    "stack, random carry": functools.partial(
        COMPOSITES["stack"], carry_init=nn.initializers.normal(1.0)
    ),
    "a cell of Flax's": functools.partial(ScannedGRU, features=4),
}


def rollout(layer, variables, carry, xs, done):
    """As an actor does: act on the carry, and start anew after an episode has ended."""
    initial = layer.apply(variables, None, (B, D), method="initialize_carry", rngs=KEY)
    step = jax.jit(lambda carry, x: layer.apply(variables, carry, x, method="step"))
    carry, ys = initial if carry is None else carry, []
    for t in range(T):
        carry, y = step(carry, xs[t])
        ys.append(y)
        ended = np.asarray(done[t])[:, None]
        carry = jax.tree.map(lambda a, b, ended=ended: np.where(ended, a, b), initial, carry)
    return carry, np.stack(ys)


# Where the initial carry is zero, a rollout from it says little more than one from a given carry.
QUICK = {
    *(("gru", True), ("lstm", True), ("stack", True), ("a cell of Flax's", True)),
    *(("lstm, learned carry", True), ("lstm, learned carry", False)),
    *(("gru, random carry", True), ("gru, random carry", False)),
    *(("stack, learned carry", False), ("stack, random carry", False)),
}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        pytest.param(
            name,
            given,
            id=f"{name} from {'a given' if given else 'its initial'} carry",
            marks=[] if (name, given) in QUICK else [pytest.mark.slow],
        )
        for name in LAYERS
        for given in (True, False)
    ],
)
def test_replaying_gives_what_stepping_gave(name, given):
    layer = LAYERS[name]()
    xs = some((T, B, D))
    variables = variables_of(layer, xs)
    start = None
    if given:
        spec = layer.carry_spec((B, D))
        start = jax.tree.map(lambda x: some(x.shape, 3), spec)
    done = np.random.default_rng(0).random((T, B)) < 0.3
    done[0, 0] = done[-1, 1] = True
    carry, ys = rollout(layer, variables, start, xs, done)

    # The step after an episode's last one is the first of the next episode.
    is_first = np.concatenate([np.zeros((1, B), bool), done[:-1]])
    replay = jax.jit(lambda resets: layer.apply(variables, start, xs, resets=resets, rngs=KEY))
    last, replayed = replay(jnp.asarray(is_first))
    assert_close(replayed, ys, 1e-5)
    alive = ~done[-1]
    for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(carry), strict=True):
        assert_close(np.asarray(a)[alive], np.asarray(b)[alive], 1e-5)
    # And `done` itself, one step too early, does not.
    assert np.abs(replay(jnp.asarray(done))[1] - ys).max() > 1e-2


@pytest.mark.parametrize("name", ["gru", "lstm, learned carry"])
def test_a_replay_in_parts_gives_the_whole(name):
    """Stored rollouts are cut into pieces that know nothing of episodes but their resets."""
    layer = LAYERS[name]()
    xs = some((T, B, D))
    variables = variables_of(layer, xs)
    is_first = jnp.asarray(np.random.default_rng(1).random((T, B)) < 0.3).at[4].set(True)
    replay = jax.jit(lambda carry, xs, resets: layer.apply(variables, carry, xs, resets=resets))
    whole, ys = replay(None, xs, is_first)
    carry, first = replay(None, xs[:4], is_first[:4])
    last, second = replay(carry, xs[4:], is_first[4:])
    assert_close((last, jnp.concatenate([first, second])), (whole, ys), 1e-5)
