"""The fused engine: everything that does not depend on the previous carry leaves the time loop.

Forward, time is cut into blocks. Each block projects its inputs by one product, where that is
faster than to project them step by step, and then loops over its steps. Backward, each block first
finds every product of its steps again, all steps at once; then a loop that holds nothing but the
carry's cotangent runs through the block; then the gradients of kernels, biases and inputs are made
of all its steps at once. What the backward pass keeps
per step is therefore the carry alone, and what it needs besides lives as long as one block.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Carry
from zoo.recurrent.engine.backward import backward
from zoo.recurrent.engine.blocks import Blocks, first_visited, shift, zip_pairs
from zoo.recurrent.engine.derivatives import dense, differentiable, nothing, pushed
from zoo.recurrent.engine.products import (
    Arithmetic,
    Multiplier,
    Separate,
    StoredSums,
    transpose_stack,
)
from zoo.recurrent.engine.step import Step

Tree = Any


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the fused engine has to know before it sees an array.

    Attributes:
      step: the layer's step.
      arithmetic: how products are made.
      reverse: whether time runs backwards.
      length: steps per block.
      keep: what the backward pass keeps from the forward pass: "products" (and carries),
        "carries", or "blocks" (the carry at the start of each block).
      hoist: whether the input projections of a block leave the forward loop, as one product.
      unroll: steps per iteration of the inner loops.
    """

    step: Step
    arithmetic: Arithmetic
    reverse: bool
    length: int
    keep: str
    hoist: bool = True
    unroll: int = 1

    def blocks(self, steps: int) -> Blocks:
        """The cut of ``steps`` steps, in the order of the forward pass."""
        return Blocks(steps, self.length, self.reverse)


def fused(
    plan: Plan, stacks: Tree, weights: Tree, fixed: Tree, start: Carry, xs: jax.Array, signals: Tree
) -> tuple[Carry, Carry]:
    """Runs a layer over time.

    Args:
      plan: see ``Plan``.
      stacks: the kernels by group, each (rows, G, width).
      weights: biases and scales by parameter name.
      fixed: what is the same for every step, see ``Step``.
      start: the first carry, arrays (*batch, width).
      xs: inputs (T, *batch, D), T >= 1.
      signals: conditions of every step, arrays (T, ...), see ``Step``.

    Returns:
      The last carry, and the carry after every step: arrays (T, *batch, width).
    """
    return _run(plan, stacks, weights, fixed, start, xs, signals)


def _plain(plan, stacks, weights, fixed, start, xs, signals):
    shared = _Shared(stacks, weights, fixed)
    final, _, (history, _) = _forward(plan, "carries", shared, start, xs, signals)
    return final, history


class _Shared(NamedTuple):
    """What every block sees: kernels by group, small weights, and what all steps share."""

    stacks: Tree
    weights: Tree
    fixed: Tree


def _forward(plan, keep, shared, start, xs, signals):
    """The last carry; and that before every block, after every step, and the sums if asked for."""
    blocks = plan.blocks(xs.shape[0])
    steps = blocks.cut((xs, signals))
    prepare, advance = _stepping(plan, shared, keep == "products")
    return blocks.steps_through(prepare, advance, start, steps, plan.unroll)


def _stepping(plan, shared, with_sums):
    """A block's steps: what is prepared for all at once, and how one is taken.

    Every new carry is returned together with the step's recurrent sums, or None.
    """

    def project(x):
        product = Multiplier(plan.arithmetic, shared.stacks)
        return plan.step.cell.project(product, x, shared.weights)

    def prepare(block):
        x, signals = block
        return (project(x) if plan.hoist else x), signals

    def advance(carry, at):
        u, signals = at
        u = u if plan.hoist else project(u)
        new, sums = _step(plan, shared, carry, u, signals)
        return new, (new, sums if with_sums else None)

    return prepare, advance


def _step(plan, shared, carry, u, signals):
    """A step and its recurrent sums, as they are where the step is differentiated.

    The derivative of a gradient is that of what a gradient computes: where an activation has a rule
    for the backward pass, of the values that go with the rule, and not again the rule.
    """

    def values(carry, u):
        recur = Multiplier(plan.arithmetic, shared.stacks)
        new = plan.step(recur, carry, u, signals, shared.fixed, shared.weights)
        return new, recur.results

    return jax.vjp(values, carry, u)[0]


def _fused_forward(plan, stacks, weights, fixed, start, xs, signals):
    # Which inputs are differentiated must not shape the residuals: JAX traces this rule anew for
    # other inputs and keeps one structure of residuals for all. What nobody asks for is dead code
    # in the compiled program instead.
    shared = _Shared(stacks, weights, fixed)
    final, entries, (history, sums) = _forward(plan, plan.keep, shared, start, xs, signals)
    kept = None if plan.keep == "blocks" else history
    return (final, history), (shared, xs, signals, entries, kept, sums)


def _fused_backward(plan, residuals, cotangents):
    """The cotangents of all arguments; those of results are None where they are zero."""
    shared, xs, signals, entries, kept, sums = residuals
    d_final, d_history = cotangents
    # A history whose cotangent is zero throughout (usually the cell state's) is not added at all.
    d_final = dense(d_final, first_visited(entries, plan.reverse))

    blocks = plan.blocks(xs.shape[0]).backwards()
    # Transposed once: a loop that multiplies by the kernel as it is would do so at every step.
    transposed = {group: transpose_stack(stack) for group, stack in shared.stacks.items()}

    def visit(state, block):
        d, gradients = state
        (x, sig), entry, (d_hist, history, sums) = block
        if plan.keep == "blocks":
            prepare, advance = _stepping(plan, shared, True)
            over = functools.partial(jax.lax.scan, reverse=plan.reverse, unroll=plan.unroll)
            _, (history, sums) = over(advance, entry, prepare((x, sig)))
        before = jax.tree.map(lambda a, b: shift(a, b, plan.reverse), entry, history)
        d, own, dx = _block_gradient(plan, shared, transposed, d, d_hist, before, sums, x, sig)
        return (d, jax.tree.map(jnp.add, gradients, own)), dx

    pair = zip_pairs(blocks.cut((xs, signals)), entries, blocks.cut((d_history, kept, sums)))
    zeros = jax.tree.map(jnp.zeros_like, shared)
    (d_start, gradients), dxs = blocks.scan(visit, (d_final, zeros), pair)
    return (*gradients, d_start, blocks.join(dxs), nothing(signals))


def _block_gradient(plan, shared, transposed, d, d_hist, before, sums, x, signals):
    """The cotangents of one block: of its first carry, of what is shared, and of its inputs.

    ``d`` is the cotangent of the last carry, ``d_hist`` of the carry after every step, ``before``
    the carry before every step, and ``sums`` the recurrent sums of every step, or None.
    """
    step, arithmetic, cell = plan.step, plan.arithmetic, plan.step.cell
    stacks, weights, fixed = shared
    reader = (Multiplier if sums is None else Separate)(arithmetic, stacks)
    u = cell.project(reader, x, weights)

    if sums is None:
        _, sums = jax.vmap(functools.partial(_step, plan, shared))(before, u, signals)

    d, d_sums, arguments, (du, d_fixed, d_weights) = backward(
        step,
        arithmetic,
        transposed,
        (fixed, weights),
        (before, u, sums, signals),
        d,
        d_hist,
        reverse=not plan.reverse,
        unroll=plan.unroll,
    )

    def read(x, perturbations, weights):
        stored = StoredSums(arithmetic, transposed, reader.results, perturbations)
        return cell.project(stored, x, weights), stored.arguments

    perturbations = StoredSums.perturbations(reader.results)
    _, pull, read_arguments = jax.vjp(read, x, perturbations, weights, has_aux=True)
    dx, read_d_sums, d_own = pull(du)
    made = (*read_arguments, *arguments), (*read_d_sums, *d_sums)
    asked = zip((cell.inputs, *cell.products), *made, strict=True)
    d_stacks = {group: arithmetic.kernel_gradient(a, own, stacks[group]) for group, a, own in asked}
    return d, _Shared(d_stacks, jax.tree.map(jnp.add, d_own, d_weights), d_fixed), dx


def _push(plan, residuals, tangents):
    (stacks, weights, fixed), xs, signals, entries, _, _ = residuals
    arguments = stacks, weights, fixed, first_visited(entries, plan.reverse), xs, signals
    return pushed(functools.partial(_plain, plan), arguments, tangents)


_run = differentiable(_plain, _fused_forward, _push, _fused_backward)
