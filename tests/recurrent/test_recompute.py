"""What a loop writes for later, and what is made again after it."""

import jax
import jax.numpy as jnp
import numpy as np

from zoo.recurrent.engine.recompute import deferred, split_at_cheap

from .layers import some

X, Y = some((3,), seed=1), some((3,), seed=2)


def test_cheap_operations_are_done_again():
    def function(x, y):
        gate = jnp.tanh(x)
        return (1 - gate) * y, -gate

    early, late = split_at_cheap(function, X, Y)
    kept = early(X, Y)
    assert sorted(map(str, kept)) == sorted(map(str, (Y, jnp.tanh(X))))
    assert all(map(jnp.array_equal, late(kept), function(X, Y)))


def test_expensive_operations_are_not():
    early, late = split_at_cheap(lambda x: {"a": jnp.exp(jnp.tanh(x) + x)}, X)
    (kept,) = early(X)
    np.testing.assert_array_equal(kept, jnp.exp(jnp.tanh(X) + X))
    np.testing.assert_array_equal(late([kept])["a"], kept)


def test_a_function_cut_in_two_can_be_mapped_over_time():
    early, late = split_at_cheap(lambda x, y: jax.nn.sigmoid(x) * y + y, X, Y)
    xs, ys = some((5, 3), seed=3), some((5, 3), seed=4)
    found = jax.vmap(late)(jax.vmap(early)(xs, ys))
    np.testing.assert_allclose(found, jax.nn.sigmoid(xs) * ys + ys, rtol=1e-6)


def test_what_follows_from_what_is_kept_anyway_needs_nothing_else():
    def function(lasting, passing):
        wide = jnp.concatenate([lasting * passing["a"], passing["b"]])
        return wide, (wide[:3] + lasting, jnp.sum(wide))

    passing = {"a": X, "b": Y}
    choose, later = deferred(function, Y, passing)
    assert choose(passing) == []
    wide, other = function(Y, passing)
    assert all(map(jnp.array_equal, later(Y, [], wide), other))


def test_what_does_not_follow_is_chosen():
    def function(lasting, passing):
        wide = lasting * passing["a"]
        return wide, (wide, jnp.tanh(passing["b"]))

    passing = {"a": X, "b": Y}
    choose, later = deferred(function, Y, passing)
    (chosen,) = choose(passing)
    assert chosen is Y
    wide, other = function(Y, passing)
    assert all(map(jnp.array_equal, later(Y, [chosen], wide), other))
