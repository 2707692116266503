"""The way back by numbers: where it may be taken, and that it is the derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.recurrent.cells import GRU, LSTM, MGU, Elman, SimplifiedGRU
from zoo.recurrent.engine.blocks import shift
from zoo.recurrent.engine.numbers import find_numbers
from zoo.recurrent.engine.products import Arithmetic
from zoo.recurrent.engine.way_back import way_back
from zoo.recurrent.step import Step

from .layers import some

F32 = jnp.dtype(jnp.float32)
# Square: a reversal, or a product with a kernel, would leave the shape as it is.
SHAPE = (4, 4)


def reverses(x: jax.Array) -> jax.Array:
    return jnp.tanh(x[..., ::-1])


def of(cell):
    """A step of ``cell``, and examples of its carry, projections and sums."""
    names = [name for name, kernel in cell.kernels.items() if kernel.source == "input"]
    u = {name: some(SHAPE, seed=i) for i, name in enumerate(names)}
    known = [tuple(some(SHAPE, seed=7 + i) for i in range(len(ask))) for ask in cell.asks]
    carry = tuple(some(SHAPE, seed=20 + i) for i in range(len(cell.carry_names)))
    return Step(cell, F32), carry, u, known


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
        (SimplifiedGRU(4, use_bias=False), None),
    ],
)
def test_only_cells_of_single_elements_have_numbers_as_derivatives(cell, joins):
    step, *example = of(cell)
    weights = {name: {} for name in cell.kernels}
    numbers = find_numbers(step, weights, *example)
    assert (numbers and numbers.of_joins) == joins


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", [GRU(3, use_bias=False), LSTM(3, use_bias=False)])
def test_it_is_the_derivative_of_a_loop(cell, reverse):
    step, arithmetic = Step(cell, F32), Arithmetic(None, F32)
    weights = {name: {} for name in cell.kernels}
    steps, batch = 5, 2
    (names,) = cell.asks
    stack = some((3, len(names), 3), seed=1)
    u = {name: some((steps, batch, 3), seed=i) for i, name in enumerate(cell.inputs)}

    def recur(a, **addends):
        sums = jnp.moveaxis(jnp.tensordot(a, stack, 1), 1, 0)
        added = [s if x is None else s + x for s, x in zip(sums, addends.values(), strict=True)]
        known.append(tuple(added))
        return tuple(added)

    known: list = []

    def run(start, u):
        def advance(carry, u):
            known.clear()
            carry = step(recur, carry, u, {}, {}, weights)
            return carry, (carry, list(known))

        return jax.lax.scan(advance, start, u, reverse=reverse)

    start, d = (
        tuple(some((batch, 3), seed=s + i) for i in range(len(cell.carry_names))) for s in (4, 8)
    )
    d_hist = tuple(some((steps, batch, 3), seed=12 + i) for i in range(len(d)))
    _, (history, sums) = run(start, u)

    def values(start, u):
        final, (history, _) = run(start, u)
        return final, history

    expected, d_u = jax.vjp(values, start, u)[1]((d, d_hist))
    before = jax.tree.map(lambda x, y: shift(x, y, reverse), start, history)
    numbers = jax.vmap(lambda *at: find_numbers(step, weights, *at))(before, u, sums)
    found, (_, (wide,)) = way_back(
        step,
        arithmetic,
        weights,
        jnp.moveaxis(stack, 0, -1),
        (before, u, sums),
        numbers,
        d,
        d_hist,
        lambda d: [],
        reverse=not reverse,
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected
    )
    # A GRU's candidate adds its input outside of the sum.
    for i, name in enumerate(cell.inputs):
        if (cell.inputs[i], names[i]) != ("in", "hn"):
            np.testing.assert_allclose(wide[..., i, :], d_u[name], rtol=1e-5, atol=1e-6)
