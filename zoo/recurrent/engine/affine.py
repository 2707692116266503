"""A step of a linear recurrence ``h' = a * h + b``, two as one, and many, one after the other."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Carry, times


@dataclasses.dataclass(frozen=True)
class Recurrence:
    """How a recurrence is run.

    Attributes:
      reverse: whether time runs backwards.
      way: "loop", one step after the other; "tree" (``jax.lax.associative_scan``); or "kernel", a
        loop inside of GPU kernels, which share time out where there are few channels.
      complex_pair: whether the two arrays of a carry are the real and the imaginary part of one.
      resets: whether a factor that is exactly zero cuts off what was before, be that infinite.
      unroll: steps per iteration of the loop.
    """

    reverse: bool = False
    way: str = "loop"
    complex_pair: bool = False
    resets: bool = False
    unroll: int = 1

    def times(self, a: Carry, b: Carry) -> Carry:
        """The product of factors or states."""
        return times(a, b, self.complex_pair)

    def affine(self, a: Carry, h: Carry, b: Carry) -> Carry:
        """``a * h + b``."""
        product = self.times(a, h)
        if self.resets:
            # A tree multiplies factors, too, and what is infinite of them may meet nothing.
            a = tuple(jnp.broadcast_to(x, y.shape) for x, y in zip(a, product, strict=True))
            nothing = zip(self.is_zero(a), self.is_zero(h), product, strict=True)
            product = tuple(jnp.where(a | h, jnp.zeros_like(x), x) for a, h, x in nothing)
        return tuple(map(jnp.add, product, b))

    def is_zero(self, a: Carry) -> tuple[jax.Array, ...]:
        """Where numbers are exactly zero; of a complex one, both parts."""
        zero = tuple(x == 0 for x in a)
        return (zero[0] & zero[1],) * 2 if self.complex_pair else zero

    def conjugate(self, a: Carry) -> Carry:
        """What multiplies a cotangent where ``a`` multiplies a value."""
        return (a[0], -a[1]) if self.complex_pair else a


def then(how: Recurrence, earlier: Any, later: Any) -> tuple[Carry, Carry]:
    """One element that does what two do."""
    (a_1, b_1), (a_2, b_2) = earlier, later
    nothing = jax.tree.map(jnp.zeros_like, b_2)
    return how.affine(a_2, a_1, nothing), how.affine(a_2, b_1, b_2)


def loop(how: Recurrence, a: Carry, b: Carry, start: Carry) -> Carry:
    """One step after the other."""
    moving, at_every = every_step(a, b)

    def advance(h: Carry, at: Any) -> tuple[Carry, Carry]:
        own, b = at
        h = how.affine(at_every(own), h, b)
        return h, h

    over = functools.partial(jax.lax.scan, reverse=how.reverse, unroll=how.unroll)
    return over(advance, start, (moving, b))[1]


def loop_back(how: Recurrence, a: Carry, g: Carry, last: Carry) -> tuple[Carry, Carry]:
    """The same for cotangents, which are multiplied after what they meet was added."""
    moving, at_every = every_step(a, g)

    def advance(d: Carry, at: Any) -> tuple[Carry, Carry]:
        own, g = at
        d = tuple(map(jnp.add, d, g))
        return how.affine(at_every(own), d, jax.tree.map(jnp.zeros_like, d)), d

    over = functools.partial(jax.lax.scan, reverse=how.reverse, unroll=how.unroll)
    start, d = over(advance, last, (moving, g))
    return d, start


def every_step(a: Carry, b: Carry) -> tuple[Any, Any]:
    """What of the factors changes over time, and how a step has them all."""
    if a[0].ndim == b[0].ndim:
        return a, lambda own: own
    return None, lambda own: a
