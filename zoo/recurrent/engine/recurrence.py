"""The recurrence ``h' = a * h + b`` from its elements, run in one of three ways, with its adjoint.

All ways of running it have the derivative that is written here. A tangent obeys the recurrence
itself, with what the elements' tangents add in the place of b. A cotangent obeys it backwards:
``d = g + a' * d'``, where g is the cotangent of a carry, and a' and d' belong to the step after;
then d is the cotangent of b, and d times the carry before the step that of a.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Carry
from zoo.recurrent.engine.affine import Recurrence, loop, loop_back, then
from zoo.recurrent.engine.backend import platform
from zoo.recurrent.engine.blocks import shift
from zoo.recurrent.engine.derivatives import dense, differentiable, pushed, without_zeros
from zoo.recurrent.engine.kernels import channels, takes_elements

Tree = Any


def fastest(b: Carry) -> str:
    """The way of a bare recurrence that was measured to be fastest, by what is added."""
    if platform() == "cpu":
        return "loop"
    return "kernel" if takes_elements(b) else "tree"


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
    d, start = _WAYS_BACK[how.way](back, factors, g, last)
    d_a = how.times(how.conjugate(_entered(before, cut)), d)
    if how.resets:
        # What was before a reset may be infinite, and is nobody's business there.
        nothing = how.is_zero(d)
        d_a = tuple(jnp.where(z, jnp.zeros_like(x), x) for z, x in zip(nothing, d_a, strict=True))
    return tuple(map(_summed_like, d_a, a)), d, start


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
    return _WAYS[how.way](how, a, b, start)


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


# Tangents are pushed through the tree, which JAX transposes as it stands.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _kernel_back(how: Recurrence, a: Carry, g: Carry, last: Carry) -> tuple[Carry, Carry]:
    return channels.backward(how, a, g, last)


@functools.partial(_kernel_back.defjvp, symbolic_zeros=True)
def _(how: Recurrence, primals: Tree, tangents: Tree) -> tuple[Tree, Tree]:
    moved = pushed(functools.partial(_tree_back, how), primals, without_zeros(tangents))
    return _kernel_back(how, *primals), moved


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
_WAYS = {"loop": loop, "tree": _tree, "kernel": channels.forward}
_WAYS_BACK = {"loop": loop_back, "tree": _tree_back, "kernel": _kernel_back}
