"""A carry's cotangent on its way back through a block: by numbers, or by a step's residuals."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from zoo.recurrent.cells import Carry, Weights
from zoo.recurrent.engine.blocks import shift
from zoo.recurrent.engine.numbers import Numbers
from zoo.recurrent.engine.products import Arithmetic, Recall, Stacks, apart
from zoo.recurrent.engine.recompute import cut, remainder
from zoo.recurrent.step import Step

# Elements of a carry, below which it pays to write one operation's result less in a step, and to
# make it again after the loop: 1.05 times as fast at (1, 1024, 64, 64), 0.98 with more elements.
_FEW = 1024

Tree = Any
History = tuple[jax.Array | None, ...]


def by_numbers(
    arithmetic: Arithmetic,
    kernel: jax.Array,
    numbers: Numbers,
    d: Carry,
    d_hist: History,
    addends: Tree,
    **options: Any,
) -> tuple[Carry, jax.Array, Tree]:
    """Runs a carry's cotangent back where the derivative of a step is numbers.

    A step of the loop multiplies by numbers that were found for all steps at once, and by the
    kernel: half as many operations, which at batch 1 is what a step takes (docs/performance.md).

    Args:
      arithmetic: how products are made.
      kernel: the transposed stack, (G, width, rows).
      numbers: of every step, arrays (T, ...).
      d: cotangent of the last carry.
      d_hist: cotangent of the carry after every step, (T, ...), or None where it is zero.
      addends: what sums may be added to, as ``numbers`` counts it: input projections, (T, ...),
        and weights, the same for every step. Only shapes and dtypes matter.
      **options: of ``jax.lax.scan``; ``reverse`` where time runs forwards.

    Returns:
      The cotangent of the first carry; those of every step's sums, side by side,
      (T, ..., G, width); and that of ``addends``.
    """
    pairs = zip(numbers.of_inputs, numbers.inputs, strict=True)
    used = {k for k, by in pairs if by is not None}
    looped = dataclasses.replace(numbers, inputs=(), of_inputs=())
    few = not is_symbolic_dim(d[0].size) and d[0].size < _FEW
    again = few and len(used | set(numbers.of_sums)) == 1
    if again:
        used |= set(numbers.of_sums)

    def back(joint, at):
        numbers, d_out = at
        wide = numbers.wide(joint)
        d = list(numbers.before(joint))
        k = numbers.argument
        d[k] = _total(arithmetic.multiply(wide, kernel, axes=2).astype(joint[k].dtype), d[k])
        d = [jnp.zeros_like(a) if b is None else b for a, b in zip(joint, d, strict=True)]
        kept = {k: joint[k] for k in used}, None if again else wide
        return numbers.join(tuple(map(_total, d, d_out))), kept

    # What begins a step, the cotangents of its outputs and what joins, ends the one before instead:
    # one operation with the sum there. After the first step in time nothing is left to add.
    ends = -1 if options["reverse"] else 0

    def earlier(x):
        return shift(jnp.zeros_like(x[ends]), x, not options["reverse"])

    last, last_out = jax.tree.map(lambda x: x[ends], (looped, d_hist))
    joint = last.join(tuple(map(_total, d, last_out)))
    steps = dataclasses.replace(looped, joins=jax.tree.map(earlier, numbers.joins))
    d, (joints, wide) = jax.lax.scan(back, joint, (steps, jax.tree.map(earlier, d_hist)), **options)
    if again:
        wide = numbers.wide(joints)
    return d, wide, _added(numbers, joints, wide, addends)


def by_residuals(
    step: Step,
    arithmetic: Arithmetic,
    transposed: Stacks,
    shared: tuple[Tree, Weights],
    every_step: tuple[Carry, Tree, list, Tree],
    d: Carry,
    d_hist: History,
    **options: Any,
) -> tuple[Carry, list[jax.Array], list[jax.Array], Tree]:
    """Runs a carry's cotangent back through any step.

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
        def recalled(carry, taps, u, fixed, weights):
            recall = Recall(arithmetic, transposed, known, taps)
            return step(recall, carry, u, sig, fixed, weights), recall.arguments

        _, pull, arguments = jax.vjp(recalled, carry, Recall.taps(known), u, *shared, has_aux=True)
        residuals, treedef = jax.tree.flatten(pull)
        structure.append(treedef)
        return residuals, arguments

    structure = []
    early, late = cut(linearise, *jax.tree.map(lambda x: x[0], every_step))
    kept = jax.vmap(early)(*every_step)

    def pull(kept, d):
        residuals, _ = late(kept)
        return jax.tree.unflatten(structure[0], residuals)(d)

    # The loop keeps the cotangents that it multiplies by the kernels, and of the carry's what it
    # takes to make all others, for all steps at once.
    def split(kept, d):
        _, wide, *others = pull(kept, d)
        return wide, others

    passing, finish = remainder(split, jax.tree.map(lambda x: x[0], kept), d)

    def back(d, at):
        kept, d_out = at
        d = tuple(map(_total, d, d_out))
        new, wide, *_ = pull(kept, d)
        return new, (passing(d), wide)

    d, (chosen, wide) = jax.lax.scan(back, d, (kept, d_hist), **options)
    du, *others = jax.vmap(finish)(kept, chosen, wide)
    _, arguments = jax.vmap(late)(kept)
    return d, wide, arguments, (du, *jax.tree.map(lambda x: jnp.sum(x, axis=0), others))


def _added(
    numbers: Numbers, joint: Mapping[int, jax.Array], wide: jax.Array, addends: Tree
) -> Tree:
    """The cotangent of what is added to sums, and of what else is read of it."""
    leaves, treedef = jax.tree.flatten(addends)
    found = [*numbers.beside(joint), *(None for _ in leaves[len(numbers.inputs) :])]
    sums = apart(wide)
    # All at once: a sum of each by itself is a program of its own to compile.
    total = jnp.sum(wide, axis=tuple(range(wide.ndim - 2)))
    for g, i in enumerate(numbers.addends):
        if i is not None:
            one = sums[g] if leaves[i].ndim == sums[g].ndim else total[g]
            found[i] = _total(one.astype(leaves[i].dtype), found[i])
    dense = (jnp.zeros_like(x) if d is None else d for d, x in zip(found, leaves, strict=True))
    return jax.tree.unflatten(treedef, dense)


def _total(a: jax.Array, *others: jax.Array | None) -> jax.Array:
    return sum((x for x in others if x is not None), start=a)
