"""The engine of linear recurrences: everything of a step but one multiplication and addition.

Time is cut into blocks, or is one block. Each block projects its inputs by one product, makes the
elements of all its steps, and runs the recurrence through them. What is kept for the backward pass
is the carries. There, a block makes its projections and elements again, runs the recurrence
backwards, and pulls the elements' cotangents back to inputs and parameters, all steps at once.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Carry, LinearCell
from zoo.recurrent.engine.affine import Recurrence
from zoo.recurrent.engine.blocks import Blocks, first_visited, shift
from zoo.recurrent.engine.derivatives import dense, differentiable, nothing, pushed
from zoo.recurrent.engine.elements import cuts, elements
from zoo.recurrent.engine.products import Arithmetic, ManySteps
from zoo.recurrent.engine.recurrence import adjoint, recurrence
from zoo.recurrent.engine.step import Step

Tree = Any


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the engine has to know before it sees an array.

    Attributes:
      step: the layer's step.
      arithmetic: how products are made.
      dtype: of products' operands.
      how: how the recurrence is run in a block.
      length: steps per block.
      keep: what the backward pass keeps from the forward pass: "carries", or "blocks" (the carry
        at the start of each block).
    """

    step: Step
    arithmetic: Arithmetic
    dtype: Any
    how: Recurrence
    length: int
    keep: str = "carries"

    @property
    def cell(self) -> LinearCell:
        """The equations."""
        assert isinstance(self.step.cell, LinearCell)
        return self.step.cell

    def blocks(self, steps: int) -> Blocks:
        """The cut of ``steps`` steps, in the order of the forward pass."""
        return Blocks(steps, self.length, self.how.reverse)


def linear(
    plan: Plan, weights: Tree, fixed: Tree, start: Carry, xs: jax.Array, signals: Tree
) -> tuple[Carry, Carry, jax.Array | None]:
    """Runs a layer over time.

    Args:
      plan: see ``Plan``.
      weights: the parameters by name.
      fixed: what is the same for every step, see ``Step``.
      start: the first carry, arrays (*batch, width), of the dtype that is computed in.
      xs: inputs (T, *batch, D), T >= 1.
      signals: conditions of every step, arrays (T, ...), see ``Step``.

    Returns:
      The last carry; the carry after every step, arrays (T, *batch, width); and what is read of
      it, or None where that is its last array.
    """
    return _run(plan, weights, fixed, start, xs, signals)


def _plain(plan, weights, fixed, start, xs, signals):
    return _forward(plan, weights, fixed, start, xs, signals)[0]


def _forward(plan, weights, fixed, start, xs, signals):
    """What ``linear`` returns, and the carry before every block."""
    blocks = plan.blocks(xs.shape[0])

    def visit(carry, block):
        x, signals = block
        product = ManySteps(plan.arithmetic, weights, plan.dtype)
        u, a, b = elements_of(plan, product, weights, fixed, x, signals)
        after = recurrence(plan.how, a, b, carry, cuts(signals))
        y = plan.cell.output(product, after, u, weights)
        return tuple(x[0 if plan.how.reverse else -1] for x in after), (carry, after, y)

    final, out = blocks.scan(visit, start, blocks.cut((xs, signals)))
    entries, after, y = _apart(out, 3)
    return (final, blocks.join(after), blocks.join(y)), entries


def elements_of(plan, product, weights, fixed, x, signals):
    """What a block projects, and its elements."""
    u = plan.cell.project(product, x, weights)
    return u, *elements(plan.step, u, weights, signals, fixed)


def forward(plan, weights, fixed, start, xs, signals):
    """What ``linear`` returns, and what ``backward`` wants of it."""
    out, entries = _forward(plan, weights, fixed, start, xs, signals)
    kept = None if plan.keep == "blocks" else out[1]
    return out, (weights, fixed, xs, signals, entries, kept)


def backward(plan, residuals, cotangents):
    """The cotangents of all arguments; those of results are None where they are zero."""
    weights, fixed, xs, signals, entries, kept = residuals
    d_final, d_after, d_y = cotangents
    d_final = dense(d_final, first_visited(entries, plan.how.reverse))
    blocks = plan.blocks(xs.shape[0]).backwards()

    def visit(state, block):
        d, gradients = state
        (x, signals, kept, d_after, d_y), entry = block
        d, own, dx = _block_gradient(
            plan, weights, fixed, x, signals, entry, kept, (d, d_after, d_y)
        )
        return (d, jax.tree.map(jnp.add, gradients, own)), dx

    pair = beside(blocks.cut((xs, signals, kept, d_after, d_y)), entries)
    zeros = jax.tree.map(jnp.zeros_like, (weights, fixed))
    (d_start, gradients), dxs = blocks.scan(visit, (d_final, zeros), pair)
    return (*gradients, d_start, blocks.join(dxs), nothing(signals))


def _block_gradient(plan, weights, fixed, x, signals, entry, after, cotangents):
    """The cotangents of one block: of its first carry, of what is shared, and of its inputs."""
    d, d_after, d_y = cotangents
    how, cut = plan.how, cuts(signals)

    def make(weights, fixed, x):
        product = ManySteps(plan.arithmetic, weights, plan.dtype, by_hand=True)
        return elements_of(plan, product, weights, fixed, x, signals)

    (u, a, b), pull = jax.vjp(make, weights, fixed, x)
    if after is None:
        after = recurrence(how, a, b, entry, cut)
    before = tuple(shift(x, own, how.reverse) for x, own in zip(entry, after, strict=True))
    g, d_u, d_weights = cotangents_read(plan, weights, u, after, d_after, d_y)
    d_a, d_b, d = adjoint(how, a, before, g, d, cut)
    own, d_fixed, dx = pull((d_u, d_a, d_b))
    return d, (jax.tree.map(jnp.add, own, d_weights), d_fixed), dx


def cotangents_read(plan, weights, u, after, d_after, d_y):
    """The cotangents of the carries of a block, of its projections and of what reads them."""
    g = dense(d_after, after)
    d_u, d_weights = jax.tree.map(jnp.zeros_like, (u, weights))
    if d_y is None:
        return g, d_u, d_weights

    def read(after, u, weights):
        product = ManySteps(plan.arithmetic, weights, plan.dtype, by_hand=True)
        return plan.cell.output(product, after, u, weights)

    own, d_u, d_weights = jax.vjp(read, after, u, weights)[1](d_y)
    return tuple(map(jnp.add, g, own)), d_u, d_weights


def beside(pair, entries):
    """A pair of blocks with the carry before each of them."""
    return tuple(
        None if entry is None else (block, entry)
        for block, entry in zip(pair, entries, strict=True)
    )


def _apart(pair, count):
    """A pair of tuples as a tuple of pairs."""
    sides = tuple((None,) * count if side is None else side for side in pair)
    return tuple(zip(*sides, strict=True))


def push(plan, residuals, tangents):
    """The tangents of what ``linear`` returns; those of arguments are None where they are zero."""
    weights, fixed, xs, signals, entries, _ = residuals
    arguments = weights, fixed, first_visited(entries, plan.how.reverse), xs, signals
    return pushed(functools.partial(_plain, plan), arguments, tangents)


_run = differentiable(_plain, forward, push, backward)
