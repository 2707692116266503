"""The way back by numbers: where it may be taken, and that it is the derivative."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.recurrent.cells import GRU, LSTM, MGU, Elman, SimplifiedGRU
from zoo.recurrent.engine import way_back
from zoo.recurrent.engine.blocks import shift
from zoo.recurrent.engine.numbers import find_numbers
from zoo.recurrent.engine.products import Arithmetic, add
from zoo.recurrent.step import Step

from .layers import some

F32 = jnp.dtype(jnp.float32)
# Square: a reversal, or a product with a kernel, would leave the shape as it is.
SHAPE = (4, 4)


def reverses(x: jax.Array) -> jax.Array:
    return jnp.tanh(x[..., ::-1])


class Weighted(Elman):
    """Reads a weight elsewhere than beside a sum: a gradient of its own, over all steps."""

    def step(self, recur, carry, u, weights):
        (h,) = super().step(recur, carry, u, weights)
        return (h * jnp.broadcast_to(weights["i"]["bias"], h.shape),)


class Scaled(Elman):
    """Multiplies something else than its carry."""

    def step(self, recur, carry, u, weights):
        (n,) = recur(2 * carry[0], h=u["i"])
        return (jnp.tanh(n),)


def of(cell, shape=SHAPE):
    """A step of ``cell``, its weights, and examples of its carry, projections and sums."""
    names = [name for name, kernel in cell.kernels.items() if kernel.source == "input"]
    u = {name: some(shape, seed=i) for i, name in enumerate(names)}
    known = [tuple(some(shape, seed=7 + i) for i in range(len(ask))) for ask in cell.asks]
    carry = tuple(some(shape, seed=20 + i) for i in range(len(cell.carry_names)))
    weights = {
        name: {"bias": some(shape[1:], seed=30 + i)} if kernel.bias else {}
        for i, (name, kernel) in enumerate(cell.kernels.items())
    }
    return Step(cell, F32), weights, carry, u, known


@pytest.mark.parametrize(
    ("cell", "joins"),
    [
        (GRU(4, use_bias=False), ((),)),
        (Elman(4, use_bias=False), ((),)),
        (MGU(4, use_bias=False), ((),)),
        (GRU(4, use_bias=False, activation_fn=jax.nn.gelu), ((),)),
        (GRU(4, use_bias=False, activation_fn=jax.nn.softmax), None),
        (GRU(4, use_bias=False, gate_fn=jax.nn.softmax), None),
        (Elman(4, use_bias=False, activation_fn=reverses), None),
        (Elman(4, use_bias=False, activation_fn=lambda x: jnp.tanh(x @ jnp.eye(4))), None),
        (Elman(4, use_bias=False, activation_fn=lambda x: jnp.cumsum(x, axis=-1)), None),
        (LSTM(4, use_bias=False), ((1,), ())),
        (GRU(4), ((),)),
        (Weighted(4), None),
        (Scaled(4), None),
        (SimplifiedGRU(4, use_bias=False), None),
    ],
)
def test_only_cells_of_single_elements_have_numbers_as_derivatives(cell, joins):
    step, weights, *example = of(cell)
    for carry, u, known in (example, jax.tree.map(lambda x: x[0], example)):
        numbers = find_numbers(step, weights, {}, carry, u, known, {})
        assert (numbers and numbers.of_joins) == joins


def test_a_step_under_conditions_has_none():
    step, weights, carry, u, known = of(GRU(4))
    mask = jnp.ones(SHAPE[:1], bool)
    assert find_numbers(step, weights, {}, carry, u, known, {"mask": mask}) is None
    fixed = {"recurrent_dropout": carry[0]}
    assert find_numbers(step, weights, fixed, carry, u, known, {}) is None


@pytest.mark.parametrize("few", [0, 1024])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", [GRU(3), MGU(3), LSTM(3), Elman(3, use_bias=False)])
def test_it_is_the_derivative_of_a_loop(cell, reverse, few, monkeypatch):
    monkeypatch.setattr(way_back, "_FEW", few)
    shape, steps = (2, 3), 5
    step, weights, start, *_ = of(cell, shape)
    (names,) = cell.asks
    stack = some((3, len(names), 3), seed=1)
    u = {name: some((steps, *shape), seed=i) for i, name in enumerate(cell.inputs)}
    known: list = []

    def recur(a, **addends):
        sums = jnp.moveaxis(jnp.tensordot(a, stack, 1), 1, 0)
        added = tuple(map(add, sums, addends.values()))
        known.append(added)
        return added

    def run(start, u, weights):
        def advance(carry, u):
            known.clear()
            carry = step(recur, carry, u, {}, {}, weights)
            return carry, (carry, list(known))

        return jax.lax.scan(advance, start, u, reverse=reverse)

    d = tuple(some(shape, seed=8 + i) for i in range(len(start)))
    d_hist = tuple(some((steps, *shape), seed=12 + i) for i in range(len(d)))
    _, (history, sums) = run(start, u, weights)

    def values(start, u, weights):
        final, (history, _) = run(start, u, weights)
        return final, history

    d_start, d_u, d_weights = jax.vjp(values, start, u, weights)[1]((d, d_hist))
    before = jax.tree.map(lambda x, y: shift(x, y, reverse), start, history)
    find = functools.partial(find_numbers, step, weights, {})
    numbers = jax.vmap(find)(before, u, sums, {})
    found, wide, added = way_back.by_numbers(
        Arithmetic(None, F32),
        jnp.moveaxis(stack, 0, -1),
        numbers,
        d,
        d_hist,
        (u, weights),
        reverse=not reverse,
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        (found, added),
        (d_start, (d_u, d_weights)),
    )
    # A candidate adds its input outside of the sum.
    for i, name in enumerate(cell.inputs):
        if (name, names[i]) != ("in", "hn"):
            np.testing.assert_allclose(wide[..., i, :], d_u[name], rtol=1e-5, atol=1e-6)
