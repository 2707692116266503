"""The way back by numbers: where it may be taken, and that it is the derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.recurrent.cells import GRU, LSTM, MGU, Elman, SimplifiedGRU
from zoo.recurrent.engine.blocks import shift
from zoo.recurrent.engine.diagonal import is_diagonal, way_back
from zoo.recurrent.engine.products import Arithmetic
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
    ("cell", "expected"),
    [
        (GRU(4, use_bias=False), True),
        (Elman(4, use_bias=False), True),
        (MGU(4, use_bias=False), True),
        (GRU(4, use_bias=False, activation_fn=jax.nn.gelu), True),
        (GRU(4, use_bias=False, activation_fn=jax.nn.softmax), False),
        (GRU(4, use_bias=False, gate_fn=jax.nn.softmax), False),
        (Elman(4, use_bias=False, activation_fn=reverses), False),
        (Elman(4, use_bias=False, activation_fn=lambda x: jnp.tanh(x @ jnp.eye(4))), False),
        (Elman(4, use_bias=False, activation_fn=lambda x: jnp.cumsum(x, axis=-1)), False),
        (LSTM(4, use_bias=False), False),
        (SimplifiedGRU(4, use_bias=False), False),
    ],
)
def test_only_cells_of_single_elements_have_numbers_as_derivatives(cell, expected):
    step, *example = of(cell)
    weights = {name: {} for name in cell.kernels}
    assert is_diagonal(step, weights, *example) is expected


@pytest.mark.parametrize("reverse", [False, True])
def test_it_is_the_derivative_of_a_loop(reverse):
    cell = GRU(3, use_bias=False)
    step, arithmetic = Step(cell, F32), Arithmetic(None, F32)
    weights = {name: {} for name in cell.kernels}
    steps, batch = 5, 2
    stack = some((3, 3, 3), seed=1)
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
            return carry, (carry[0], list(known))

        return jax.lax.scan(advance, (start,), u, reverse=reverse)

    start, d_hist = some((batch, 3), seed=4), some((steps, batch, 3), seed=5)
    (final,), (history, sums) = run(start, u)
    expected, d_u = jax.vjp(lambda s, u: run(s, u)[1][0], start, u)[1](d_hist)
    every_step = ((shift(start, history, reverse),), u, sums)
    (found,), (_, (wide,)) = way_back(
        step,
        arithmetic,
        weights,
        jnp.moveaxis(stack, 0, -1),
        every_step,
        (jnp.zeros_like(final),),
        (d_hist,),
        lambda d: [],
        reverse=not reverse,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(wide[..., 0, :], d_u["ir"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(wide[..., 1, :], d_u["iz"], rtol=1e-5, atol=1e-6)
