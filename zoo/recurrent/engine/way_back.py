"""A carry's cotangent on its way back through a block, by numbers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.cells import Carry, Weights
from zoo.recurrent.engine.blocks import shift
from zoo.recurrent.engine.numbers import Given, Numbers
from zoo.recurrent.engine.products import Arithmetic
from zoo.recurrent.step import Step


def way_back(
    step: Step,
    arithmetic: Arithmetic,
    weights: Weights,
    kernel: jax.Array,
    every_step: tuple[Carry, Any, list],
    numbers: Numbers,
    d: Carry,
    d_hist: tuple[jax.Array | None, ...],
    keep: Callable[[Carry], list[jax.Array]],
    **options: Any,
) -> tuple[Carry, tuple[list[jax.Array], list[jax.Array]]]:
    """Runs a carry's cotangent back through a block.

    A step of the loop multiplies by numbers that were found for all steps at once, and by the
    kernel: half as many operations, which at batch 1 is what a step takes (docs/performance.md).

    Args:
      step: see ``find_numbers``.
      arithmetic: how products are made.
      weights: biases and scales by parameter name.
      kernel: the transposed stack, (G, width, rows).
      every_step: carries before every step, input projections and recurrent sums, (T, ...).
      numbers: of every step, arrays (T, ...).
      d: cotangent of the last carry.
      d_hist: cotangent of the carry after every step, (T, ...), or None where it is zero.
      keep: what is wanted of the joint cotangents of every step.
      **options: of ``jax.lax.scan``; ``reverse`` where time runs forwards.

    Returns:
      The cotangent of the first carry; and of every step what ``keep`` returned and the
      cotangents of the sums, side by side.
    """

    def multiplied(carry, u, known):
        given = Given(known)
        step(given, carry, u, {}, {}, weights)
        return given.arguments[0]

    def back(joint, at):
        numbers, (carry, *others), d_out = at
        wide = numbers.wide(joint)
        a, pull = jax.vjp(lambda carry: multiplied(carry, *others), carry)
        (through,) = pull(arithmetic.multiply(wide, kernel, axes=2).astype(a.dtype))
        d = tuple(map(_total, through, numbers.before(joint), d_out))
        return numbers.join(d), (keep(joint), [wide])

    # What begins a step, the cotangents of its outputs and what joins, ends the one before instead:
    # one operation with the sum there. After the first step in time nothing is left to add.
    ends = -1 if options["reverse"] else 0

    def earlier(x):
        return shift(jnp.zeros_like(x[ends]), x, not options["reverse"])

    last, last_out = jax.tree.map(lambda x: x[ends], (numbers, d_hist))
    joint = last.join(tuple(map(_total, d, last_out)))
    steps = dataclasses.replace(numbers, joins=jax.tree.map(earlier, numbers.joins))
    return jax.lax.scan(back, joint, (steps, every_step, jax.tree.map(earlier, d_hist)), **options)


def _total(a: jax.Array, *others: jax.Array | None) -> jax.Array:
    return sum((x for x in others if x is not None), start=a)
