"""The carry's cotangent on its way backwards through a block of steps."""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Carry, Weights
from zoo.recurrent.engine.products import Arithmetic, Stacks, StoredSums
from zoo.recurrent.engine.recompute import deferred, split_at_cheap
from zoo.recurrent.engine.step import Step

Tree = Any
History = tuple[jax.Array | None, ...]


def backward(
    step: Step,
    arithmetic: Arithmetic,
    transposed: Stacks,
    shared: tuple[Tree, Weights],
    every_step: tuple[Carry, Tree, list, Tree],
    d: Carry,
    d_hist: History,
    **options: Any,
) -> tuple[Carry, list[jax.Array], list[jax.Array], Tree]:
    """Runs a carry's cotangent back through the steps of a block.

    Args:
      step: what was done at every step.
      arithmetic: how products are made.
      transposed: the transposed stacks.
      shared: what all steps share, see ``Step``, and the weights.
      every_step: carries before every step, input projections, sums and signals, (T, ...).
      d: cotangent of the last carry.
      d_hist: cotangent of the carry after every step, (T, ...), or None where it is zero.
      **options: of ``jax.lax.scan``.

    Returns:
      The cotangent of the first carry; for every product of a step, its sums' cotangents side by
      side and what was multiplied, (T, ...); and the cotangents of the projections, of what all
      steps share and of weights.
    """

    # The step as a linear map of cotangents, found for all steps at once. Its residuals are a
    # pytree with a leading time axis, which a loop can take apart step by step.
    def linearise(carry, u, known, sig):
        def with_stored_sums(carry, perturbations, u, fixed, weights):
            stored = StoredSums(arithmetic, transposed, known, perturbations)
            return step(stored, carry, u, sig, fixed, weights), stored.arguments

        _, pull, arguments = jax.vjp(
            with_stored_sums, carry, StoredSums.perturbations(known), u, *shared, has_aux=True
        )
        residuals, treedef = jax.tree.flatten(pull)
        structure.append(treedef)
        return residuals, arguments

    structure = []
    early, late = split_at_cheap(linearise, *jax.tree.map(lambda x: x[0], every_step))
    kept = jax.vmap(early)(*every_step)

    def pull(kept, d):
        residuals, _ = late(kept)
        return jax.tree.unflatten(structure[0], residuals)(d)

    # The loop keeps the cotangents that it multiplies by the kernels, and of the carry's what it
    # takes to make all others, for all steps at once.
    def split(kept, d):
        _, d_sums, *others = pull(kept, d)
        return d_sums, others

    passing, finish = deferred(split, jax.tree.map(lambda x: x[0], kept), d)

    def back(d, at):
        kept, d_out = at
        d = tuple(map(_total, d, d_out))
        new, d_sums, *_ = pull(kept, d)
        return new, (passing(d), d_sums)

    d, (chosen, d_sums) = jax.lax.scan(back, d, (kept, d_hist), **options)
    du, *others = jax.vmap(finish)(kept, chosen, d_sums)
    _, arguments = jax.vmap(late)(kept)
    return d, d_sums, arguments, (du, *jax.tree.map(lambda x: jnp.sum(x, axis=0), others))


def _total(a: jax.Array, *others: jax.Array | None) -> jax.Array:
    return sum((x for x in others if x is not None), start=a)
