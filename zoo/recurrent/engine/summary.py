"""Many steps of a linear recurrence as one: what they do to any carry."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Carry
from zoo.recurrent.engine.affine import Recurrence, every_step, then
from zoo.recurrent.engine.recurrence import flipped


def summary(how: Recurrence, a: Carry, b: Carry, factor: Carry, h: Carry) -> tuple[Carry, Carry]:
    """What steps make of a product of factors and of a carry, keeping nothing of any step.

    Args:
      how: see ``Recurrence``.
      a: as in ``recurrence``.
      b: as in ``recurrence``.
      factor: the product of the factors before, arrays (...).
      h: the carry before, arrays (...).

    Returns:
      The product with all factors of ``a``, and the carry after the last step.
    """
    if how.way == "tree":
        return then(how, (factor, h), _total(how, a, b))
    moving, at_every = every_step(a, b)

    def advance(state: tuple[Carry, Carry], at: Any) -> tuple[tuple[Carry, Carry], None]:
        own, b = at
        return then(how, state, (at_every(own), b)), None

    over = functools.partial(jax.lax.scan, reverse=how.reverse, unroll=how.unroll)
    return over(advance, (factor, h), (moving, b))[0]


def one(how: Recurrence, like: Carry) -> Carry:
    """The factor that changes nothing."""
    ones = jax.tree.map(jnp.ones_like, like)
    return (ones[0], jnp.zeros_like(ones[1])) if how.complex_pair else ones


def _total(how: Recurrence, a: Carry, b: Carry) -> tuple[Carry, Carry]:
    """One element that does what all do; neighbours are put together until one is left."""
    a = tuple(jnp.broadcast_to(x, like.shape) for x, like in zip(a, b, strict=True))
    elements = (flipped(a), flipped(b)) if how.reverse else (a, b)
    while elements[1][0].shape[0] > 1:
        elements = _halved(how, elements)
    a, b = elements
    return tuple(x[0] for x in a), tuple(x[0] for x in b)


def _halved(how: Recurrence, elements: tuple[Carry, Carry]) -> tuple[Carry, Carry]:
    """Every two steps as one; what is left over stays as it is."""
    steps = elements[1][0].shape[0]
    even = steps - steps % 2
    earlier, later, rest = (
        jax.tree.map(lambda x, part=part: x[part], elements)
        for part in (slice(0, even, 2), slice(1, even, 2), slice(even, None))
    )
    return jax.tree.map(lambda *own: jnp.concatenate(own), then(how, earlier, later), rest)
