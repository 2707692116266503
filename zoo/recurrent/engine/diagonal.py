"""A way back for cells whose step, but for its product, takes every element by itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.cells import Carry, Weights
from zoo.recurrent.engine.blocks import shift
from zoo.recurrent.engine.products import Arithmetic, side_by_side
from zoo.recurrent.step import Step

# Linear, and of every element by itself where the shape stays.
_ELEMENTWISE = frozenset(
    ("add", "add_any", "broadcast_in_dim", "convert_element_type", "copy", "div", "mul", "neg")
) | {"select_n", "sub"}


def is_diagonal(step: Step, weights: Weights, carry: Carry, u: Any, known: list) -> bool:
    """Whether the derivative of a step with known sums is one number per element of the carry.

    It is not for cells of several arrays, nor where an activation looks at several elements.

    Args:
      step: a step without conditions.
      weights: biases and scales by parameter name.
      carry: before it.
      u: its input projections.
      known: its recurrent sums.
    """
    if len(carry) != 1 or len(known) != 1:
        return False
    pull = _derivative(step, weights, carry, u, known)
    return _elementwise(jax.make_jaxpr(pull)(carry).jaxpr, carry[0].shape)


def way_back(
    step: Step,
    arithmetic: Arithmetic,
    weights: Weights,
    kernel: jax.Array,
    every_step: tuple[Carry, Any, list],
    d: Carry,
    d_hist: tuple[jax.Array | None, ...],
    keep: Callable[[Carry], list[jax.Array]],
    **options: Any,
) -> tuple[Carry, tuple[list[jax.Array], list[jax.Array]]]:
    """Runs a carry's cotangent back through a block.

    The derivatives are found as numbers, of all steps at once, so that a step of the loop is one
    multiplication by them and one by the kernel: half as many operations, which at batch 1 is what
    a step takes (docs/performance.md). Cells of several arrays have too many such numbers to read.

    Args:
      step: see ``is_diagonal``.
      arithmetic: how products are made.
      weights: biases and scales by parameter name.
      kernel: the transposed stack, (G, width, rows).
      every_step: carries before every step, input projections and recurrent sums, (T, ...).
      d: cotangent of the last carry.
      d_hist: cotangent of the carry after every step, (T, ...), or None where it is zero.
      keep: what is wanted of the carry's cotangent after every step.
      **options: of ``jax.lax.scan``; ``reverse`` where time runs forwards.

    Returns:
      The cotangent of the first carry; and of every step what ``keep`` returned and the
      cotangents of the sums, side by side.
    """

    def numbers(carry, u, known):
        ones = tuple(map(jnp.ones_like, carry))
        (direct,), (sums,) = _derivative(step, weights, carry, u, known)(ones)
        return direct, side_by_side(sums)

    def multiplied(carry, u, known):
        given = _Given(known)
        step(given, carry, u, {}, {}, weights)
        return given.arguments[0]

    def back(state, at):
        (d,), ((direct, sums), (carry, *others), d_out) = state, at
        wide = sums * d.astype(sums.dtype)[..., None, :]
        a, pull = jax.vjp(lambda carry: multiplied(carry, *others), carry)
        ((d_carry,),) = pull(arithmetic.multiply(wide, kernel, axes=2).astype(a.dtype))
        d_carry = d_carry + direct * d
        new = d_carry if d_out is None else d_carry + d_out
        return (new,), (keep(state), [wide])

    # The cotangent of an output joins at the end of the step before: one operation with the sum.
    (d,), (d_out,) = d, d_hist
    if d_out is not None:
        d, d_out = (
            d + d_out[-1 if options["reverse"] else 0],
            shift(jnp.zeros_like(d), d_out, not options["reverse"]),
        )
    derivatives = jax.vmap(numbers)(*every_step)
    return jax.lax.scan(back, (d,), (derivatives, every_step, d_out), **options)


class _Given:
    """Gives back known sums; their cotangents are asked for as those of an argument."""

    def __init__(self, known: list):
        self.known, self.arguments = iter(known), []

    def __call__(self, a: jax.Array, **addends: jax.Array | None) -> tuple[jax.Array, ...]:
        self.arguments.append(a)
        return next(self.known)


def _derivative(step, weights, carry, u, known):
    def given(carry, known):
        return step(_Given(known), carry, u, {}, {}, weights)

    return jax.vjp(given, carry, known)[1]


def _elementwise(jaxpr: Any, shape: tuple[int, ...]) -> bool:
    for eqn in jaxpr.eqns:
        inner = eqn.params.get("jaxpr")
        known = eqn.primitive.name in _ELEMENTWISE if inner is None else True
        if inner is not None and not _elementwise(getattr(inner, "jaxpr", inner), shape):
            return False
        if not known or any(out.aval.shape != shape for out in eqn.outvars):
            return False
    return True
