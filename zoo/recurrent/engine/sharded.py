"""Linear recurrences whose time is shared out over devices, which meet once in each direction.

What a part of time makes of the carry that enters it is ``P * carry + h``: P is the product of the
part's factors, h what it ends with if it starts from zero. Every device finds these two for its own
part, all devices exchange them, which takes as long whatever T is, and each folds those before
its own into the carry that it really starts from. Then it runs its part as one device would.

Starting anew is twice the work of adding ``P * carry`` to every step, but it needs no products up
to every step, and what is not a number spoils exactly what it would spoil on one device. Tangents
obey the same recurrence, cotangents the same backwards: both are found in the same two passes.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Carry
from zoo.recurrent.engine import linear
from zoo.recurrent.engine.affine import Recurrence
from zoo.recurrent.engine.blocks import shift
from zoo.recurrent.engine.derivatives import dense, differentiable
from zoo.recurrent.engine.elements import cuts
from zoo.recurrent.engine.linear import Plan
from zoo.recurrent.engine.parts import Parts
from zoo.recurrent.engine.products import ManySteps
from zoo.recurrent.engine.recurrence import adjoint, recurrence
from zoo.recurrent.engine.summary import one, summary

Tree = Any


@dataclasses.dataclass(frozen=True)
class Shared:
    """What has to be known before there is an array.

    Attributes:
      plan: how a part is run.
      parts: how time is shared out.
    """

    plan: Plan
    parts: Parts


def sharded(
    shared: Shared, weights: Tree, fixed: Tree, start: Carry, xs: jax.Array, signals: Tree
) -> tuple[Carry, Carry, jax.Array | None]:
    """Runs a layer over time, as ``linear.linear`` does.

    Args:
      shared: see ``Shared``.
      weights: the parameters by name.
      fixed: what is the same for every step, see ``Step``.
      start: the carry that enters the first part, arrays (*batch, width).
      xs: this device's inputs (T, *batch, D), T >= 1.
      signals: conditions of these steps, arrays (T, ...), see ``Step``.

    Returns:
      The carry that leaves this part; that after every step of it; and what is read of it, or None.
    """
    return _run(shared, weights, fixed, start, xs, signals)


def fold(parts: Parts, how: Recurrence, factor: Carry, last: Carry, start: Carry) -> Carry:
    """The carry that enters this part: the recurrence of parts, for which devices meet.

    Args:
      parts: how time is shared out.
      how: how a recurrence is run, in the order of ``parts``.
      factor: what this part multiplies a carry by, arrays (*batch, width).
      last: what it makes of zero; the first part, of ``start``.
      start: what enters the first part.
    """
    # What the first part ends with is known, so nothing is multiplied there.
    factor = _where(parts.is_first(), jax.tree.map(jnp.zeros_like, factor), factor)
    factors, lasts = parts.gather((factor, last))
    zeros = tuple(jnp.zeros_like(x[0]) for x in lasts)
    # Few parts make a short loop, and a tree would be built for each number of them.
    how = dataclasses.replace(how, way="loop")
    return parts.before(recurrence(how, factors, lasts, zeros), start)


def of_elements(parts: Parts, how: Recurrence, a: Carry, b: Carry, start: Carry) -> Carry:
    """A recurrence from its elements, as ``recurrence``, that JAX differentiates as it stands.

    Args:
      parts: how time is shared out.
      how: how a part is run.
      a: what multiplies the carry, arrays (T, ...) of this part.
      b: what is added, like ``a``.
      start: what enters the first part, arrays (...).
    """
    zeros, end = jax.tree.map(jnp.zeros_like, b), 0 if how.reverse else -1
    factor = tuple(x[end] for x in recurrence(how, a, zeros, one(how, start)))
    last = tuple(x[end] for x in recurrence(how, a, b, _only_first(parts, start)))
    return recurrence(how, a, b, fold(parts, how, factor, last, start))


def _where(condition: jax.Array, yes: Carry, no: Carry) -> Carry:
    return tuple(jnp.where(condition, x, y) for x, y in zip(yes, no, strict=True))


def _only_first(parts: Parts, start: Carry) -> Carry:
    return _where(parts.is_first(), start, jax.tree.map(jnp.zeros_like, start))


def _forward(shared, weights, fixed, start, xs, signals):
    plan, parts = shared.plan, shared.parts
    own = _only_first(parts, start)
    factor, last = _part(plan, weights, fixed, own, xs, signals)
    entered = fold(parts, plan.how, factor, last, start)
    out, residuals = linear.forward(plan, weights, fixed, entered, xs, signals)
    return out, (residuals, factor)


def _plain(shared, weights, fixed, start, xs, signals):
    return _forward(shared, weights, fixed, start, xs, signals)[0]


def _part(plan, weights, fixed, start, xs, signals):
    """The product of the factors, and the last carry."""
    blocks = plan.blocks(xs.shape[0])

    def visit(state, block):
        x, signals = block
        product = ManySteps(plan.arithmetic, weights, plan.dtype)
        _, a, b = linear.elements_of(plan, product, weights, fixed, x, signals)
        return summary(plan.how, a, b, *state), None

    return blocks.scan(visit, (one(plan.how, start), start), blocks.cut((xs, signals)))[0]


def _through(factor, signals):
    """A part's product as a derivative sees it: zero where the gradient is cut inside of it."""
    if (cut := cuts(signals)) is None:
        return factor
    cut = jnp.any(cut, axis=0)

    def stop(x):
        return jnp.where(cut.reshape(cut.shape + (1,) * (x.ndim - cut.ndim)), jnp.zeros_like(x), x)

    return tuple(map(stop, factor))


def _cotangent_before(plan, residuals, d_final, d_after, d_y):
    """The cotangent of the carry that enters this part, and nothing else."""
    weights, fixed, xs, signals, entries, kept = residuals
    blocks = plan.blocks(xs.shape[0]).backwards()

    def visit(d, block):
        (x, signals, after, d_after, d_y), entry = block
        product = ManySteps(plan.arithmetic, weights, plan.dtype)
        u, a, b = linear.elements_of(plan, product, weights, fixed, x, signals)
        cut = cuts(signals)
        if after is None:
            after = recurrence(plan.how, a, b, entry, cut)
        pairs = zip(entry, after, strict=True)
        before = tuple(shift(x, own, plan.how.reverse) for x, own in pairs)
        g = linear.cotangents_read(plan, weights, u, after, d_after, d_y)[0]
        return adjoint(plan.how, a, before, g, d, cut)[2], None

    pair = blocks.cut((xs, signals, kept, d_after, d_y))
    return blocks.scan(visit, d_final, linear.beside(pair, entries))[0]


def _backward(shared, residuals, cotangents):
    """The cotangents of all arguments; those of results are None where they are zero."""
    plan, parts = shared.plan, shared.parts
    own, factor = residuals
    signals = own[3]
    d_final, d_after, d_y = cotangents
    d_final = dense(d_final, factor)
    d_before = _cotangent_before(plan, own, d_final, d_after, d_y)
    back = dataclasses.replace(
        plan.how, reverse=not plan.how.reverse, resets=plan.how.resets or "cut" in signals
    )
    factor = plan.how.conjugate(_through(factor, signals))
    zeros = jax.tree.map(jnp.zeros_like, factor)
    d_later = fold(parts.backwards(), back, factor, d_before, zeros)
    d_final = tuple(map(jnp.add, d_final, d_later))
    d_weights, d_fixed, d_start, *rest = linear.backward(plan, own, (d_final, d_after, d_y))
    return d_weights, d_fixed, _only_first(parts, d_start), *rest


def _push(shared, residuals, tangents):
    plan, parts = shared.plan, shared.parts
    own, factor = residuals
    t_weights, t_fixed, t_start, *rest = tangents

    def tangents_from(start):
        return linear.push(plan, own, (t_weights, t_fixed, start, *rest))

    t_start = dense(t_start, factor)
    last, *_ = tangents_from(_only_first(parts, t_start))
    how = dataclasses.replace(plan.how, resets=plan.how.resets or "cut" in own[3])
    return tangents_from(fold(parts, how, _through(factor, own[3]), last, t_start))


_run = differentiable(_plain, _forward, _push, _backward)
