"""The recurrence ``h' = a * h + b`` from its elements, in order or as a tree, with its adjoint.

Both ways of running it have the derivative that is written here. A tangent obeys the recurrence
itself, with what the elements' tangents add in the place of b. A cotangent obeys it backwards:
``d = g + a' * d'``, where g is the cotangent of a carry, and a' and d' belong to the step after;
then d is the cotangent of b, and d times the carry before the step that of a.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Carry, times
from zoo.recurrent.engine.blocks import shift
from zoo.recurrent.engine.derivatives import dense, differentiable

Tree = Any


@dataclasses.dataclass(frozen=True)
class Recurrence:
    """How a recurrence is run.

    Attributes:
      reverse: whether time runs backwards.
      associative: whether as a tree (``jax.lax.associative_scan``), or one step after the other.
      complex_pair: whether the two arrays of a carry are the real and the imaginary part of one.
      resets: whether a factor that is exactly zero cuts off what was before, be that infinite.
      unroll: steps per iteration of the loop.
    """

    reverse: bool = False
    associative: bool = False
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


def runs_as_tree() -> bool:
    """Whether a bare recurrence is run as a tree: on CPU, a loop was measured to be faster."""
    return jax.default_backend() != "cpu"


def recurrence(how: Recurrence, a: Carry, b: Carry, start: Carry, cut: Any = None) -> Carry:
    """Runs a recurrence.

    Args:
      how: see ``Recurrence``.
      a: what multiplies the carry, arrays (T, ...), or (width,) where it is the same for all steps.
      b: what is added, arrays (T, ...).
      start: the first carry, arrays (...).
      cut: bool (T, ...), before which steps the gradient ends, or None.

    Returns:
      The carry after every step, arrays (T, ...).
    """
    return _run(how, a, b, start, cut)


def adjoint(
    how: Recurrence, a: Carry, before: Carry, g: Carry, last: Carry, cut: Any = None
) -> tuple[Carry, Carry, Carry]:
    """Runs the cotangents of a recurrence back to its elements.

    Args:
      how: see ``Recurrence``.
      a: as in ``recurrence``.
      before: the carry before every step, arrays (T, ...).
      g: the cotangent of the carry after every step, arrays (T, ...).
      last: what comes to the cotangent of the last carry from beyond, arrays (...).
      cut: as in ``recurrence``.

    Returns:
      The cotangents of a, b and the first carry.
    """
    factors = how.conjugate(_through(a, g, cut))
    back = dataclasses.replace(how, reverse=not how.reverse, resets=how.resets or cut is not None)
    d, start = (_tree_back if how.associative else _loop_back)(back, factors, g, last)
    d_a = how.times(how.conjugate(_entered(before, cut)), d)
    if how.resets:
        # What was before a reset may be infinite, and is nobody's business there.
        nothing = how.is_zero(d)
        d_a = tuple(jnp.where(z, jnp.zeros_like(x), x) for z, x in zip(nothing, d_a, strict=True))
    return tuple(map(_summed_like, d_a, a)), d, start


def then(how: Recurrence, earlier: Any, later: Any) -> tuple[Carry, Carry]:
    """One element that does what two do."""
    (a_1, b_1), (a_2, b_2) = earlier, later
    nothing = jax.tree.map(jnp.zeros_like, b_2)
    return how.affine(a_2, a_1, nothing), how.affine(a_2, b_1, b_2)


def _through(a: Carry, like: Carry, cut: Any) -> Carry:
    """The factors as a derivative sees them: zero where the gradient is cut."""
    if cut is None:
        return a

    def stop(x: jax.Array, like: jax.Array) -> jax.Array:
        x = jnp.broadcast_to(x, like.shape)
        return jnp.where(_column(cut, x), jnp.zeros_like(x), x)

    return tuple(map(stop, a, like))


def _entered(before: Carry, cut: Any) -> Carry:
    """The carries that enter the steps, some of them behind a cut."""
    if cut is None:
        return before
    return tuple(jnp.where(_column(cut, x), jax.lax.stop_gradient(x), x) for x in before)


def _column(cut: jax.Array, like: jax.Array) -> jax.Array:
    return cut.reshape(cut.shape + (1,) * (like.ndim - cut.ndim))


def _summed_like(x: jax.Array, like: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=tuple(range(x.ndim - like.ndim)))


def _plain(how: Recurrence, a: Carry, b: Carry, start: Carry, cut: Any) -> Carry:
    return (_tree if how.associative else _loop)(how, a, b, start)


def _loop(how: Recurrence, a: Carry, b: Carry, start: Carry) -> Carry:
    """One step after the other."""
    moving, at_every = every_step(a, b)

    def advance(h: Carry, at: Any) -> tuple[Carry, Carry]:
        own, b = at
        h = how.affine(at_every(own), h, b)
        return h, h

    over = functools.partial(jax.lax.scan, reverse=how.reverse, unroll=how.unroll)
    return over(advance, start, (moving, b))[1]


def _loop_back(how: Recurrence, a: Carry, g: Carry, last: Carry) -> tuple[Carry, Carry]:
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


def _tree(how: Recurrence, a: Carry, b: Carry, start: Carry) -> Carry:
    """As a tree over time, the first carry folded into the first element."""
    a = tuple(jnp.broadcast_to(x, like.shape) for x, like in zip(a, b, strict=True))
    # The option ``reverse`` of associative_scan swaps operands that do not commute.
    if how.reverse:
        a, b = flipped(a), flipped(b)
    first = how.affine(_at(a, 0), start, _at(b, 0))
    b = tuple(jnp.concatenate([x[None], rest[1:]]) for x, rest in zip(first, b, strict=True))
    _, h = jax.lax.associative_scan(functools.partial(then, how), (a, b))
    return flipped(h) if how.reverse else h


def _tree_back(how: Recurrence, a: Carry, g: Carry, last: Carry) -> tuple[Carry, Carry]:
    """The same for cotangents: factors belong to the step after, in the order of time."""
    a = tuple(jnp.broadcast_to(x, like.shape) for x, like in zip(a, g, strict=True))
    end = -1 if how.reverse else 0
    g = tuple(x.at[end].add(own) for x, own in zip(g, last, strict=True))
    zeros = jax.tree.map(jnp.zeros_like, last)
    late = tuple(shift(x[end], x, how.reverse) for x in a)
    d = _tree(how, late, g, zeros)
    first = 0 if how.reverse else -1
    return d, how.affine(_at(a, first), _at(d, first), zeros)


def _at(tree: Carry, t: int) -> Carry:
    return tuple(x[t] for x in tree)


def flipped(tree: Carry) -> Carry:
    """Arrays in the other order of time."""
    return tuple(jnp.flip(x, axis=0) for x in tree)


def _forward(how: Recurrence, a: Carry, b: Carry, start: Carry, cut: Any) -> tuple[Carry, Tree]:
    # Itself, and not the plain run: that one does not know where the gradient is cut.
    h = recurrence(how, a, b, start, cut)
    before = tuple(shift(x, own, how.reverse) for x, own in zip(start, h, strict=True))
    return h, (a, before, cut)


def _push(how: Recurrence, residuals: Tree, tangents: Tree) -> Tree:
    a, before, cut = residuals
    t_a, t_b, t_start, _ = tangents
    added = dense(t_b, before)
    if any(t is not None for t in t_a):
        added = tuple(map(jnp.add, how.times(dense(t_a, a), before), added))
    start = dense(t_start, tuple(x[0] for x in before))
    how = dataclasses.replace(how, resets=how.resets or cut is not None)
    return recurrence(how, _through(a, before, cut), added, start)


def _pull(how: Recurrence, residuals: Tree, cotangents: Tree) -> Tree:
    a, before, cut = residuals
    g = dense(cotangents, before)
    zeros = tuple(jnp.zeros_like(x[0]) for x in before)
    return (*adjoint(how, a, before, g, zeros, cut), None)


_run = differentiable(_plain, _forward, _push, _pull)
