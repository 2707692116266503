"""Lengths, masks and resets of a call, turned into the signals of every step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from zoo.recurrent.cell import Carry
from zoo.recurrent.engine.parts import Parts
from zoo.recurrent.engine.step import Arrays, select


class Conditions(NamedTuple):
    """What a caller says about a sequence beside its inputs; see ``RecurrentLayer``.

    Attributes:
      seq_lengths: int (*batch,) or None.
      mask: bool, the axes of xs without its features, or None.
      resets: like ``mask``.
      deterministic: whether dropouts are off; None where that was decided.
      intervals: float, like ``mask``.
    """

    seq_lengths: jax.Array | None = None
    mask: jax.Array | None = None
    resets: jax.Array | None = None
    deterministic: bool | None = True
    intervals: jax.Array | None = None


class Steps(NamedTuple):
    """What a call's lengths, masks and resets mean for every step, time first.

    Attributes:
      valid: bool (T, *batch), which steps are taken; None where all are.
      resets: bool (T, *batch), before which steps the carry is replaced; None for none.
      poisoned: bool (T, *batch), where the state would not be finite; None without resets.
      poisoned_carry: bool (*batch,), the same for the last carry.
    """

    valid: jax.Array | None
    resets: jax.Array | None
    poisoned: jax.Array | None = None
    poisoned_carry: jax.Array | None = None

    @property
    def taken(self) -> jax.Array | None:
        """bool (T, *batch), the steps that are really run; None where all are."""
        if self.poisoned is None:
            return self.valid
        return ~self.poisoned if self.valid is None else self.valid & ~self.poisoned


def valid_steps(
    steps: int, seq_lengths: jax.Array | None, mask: jax.Array | None, first: Any = 0
) -> jax.Array | None:
    """The steps that are neither padding nor masked, bool (T, *batch), or None for all.

    Args:
      steps: T.
      seq_lengths: int (*batch,) or None.
      mask: bool (T, *batch) or None.
      first: the number of the first of these steps, in what lengths are counted.
    """
    if seq_lengths is None:
        return mask
    # Steps are counted in int32: a narrow dtype of the lengths could not count to T.
    most = min(jnp.iinfo(seq_lengths.dtype).max, jnp.iinfo(jnp.int32).max)
    seq_lengths = jnp.clip(seq_lengths, 0, most).astype(jnp.int32)
    time = first + jnp.arange(steps, dtype=jnp.int32)
    inside = time.reshape((steps,) + (1,) * seq_lengths.ndim) < seq_lengths[None]
    return inside if mask is None else inside & mask


def resolve(
    xs: jax.Array,
    start: Carry,
    seq_lengths: jax.Array | None,
    mask: jax.Array | None,
    resets: jax.Array | None,
    parts: Parts,
    feature_axes: int = 1,
) -> Steps:
    """Combines lengths, masks and resets.

    A reset must keep what lies before it from what comes after, gradients included, even where
    that is NaN: zero times NaN is NaN, so a step that has seen one must not be run at all. From a
    non-finite input (or first carry) to the next reset steps are therefore skipped, and what they
    would have returned is written as NaN afterwards. This costs a scan over booleans only.

    Args:
      xs: inputs (T, *batch, D).
      start: the first carry.
      seq_lengths: int (*batch,) or None.
      mask: bool (T, *batch) or None.
      resets: bool (T, *batch) or None.
      parts: which way time runs, and how it is shared out over devices.
      feature_axes: how many of the last axes of xs, and of the carry, are features.
    """
    valid = valid_steps(xs.shape[0], seq_lengths, mask, parts.first_step(xs.shape[0]))
    if resets is None:
        return Steps(valid, None)
    if valid is not None:
        resets = resets & valid
    features = tuple(range(-feature_axes, 0))
    bad = ~jnp.all(jnp.isfinite(xs), axis=features)
    if valid is not None:
        bad = bad & valid
    finite = [jnp.all(jnp.isfinite(x), axis=features) for x in jax.tree.leaves(start)]
    bad_start = ~jnp.stack(finite).all(axis=0)
    poisoned = in_parts(parts, bad, resets, bad_start)
    last = poisoned[0] if parts.reverse else poisoned[-1]
    return Steps(valid, resets, poisoned, last)


def since_reset(
    bad: jax.Array, resets: jax.Array, bad_start: jax.Array, reverse: bool
) -> jax.Array:
    """Whether anything bad has happened since the last reset, (T, *batch)."""

    def advance(poisoned, at):
        bad, reset = at
        poisoned = bad | (poisoned & ~reset)
        return poisoned, poisoned

    # The number of compositions below follows from T, which is no number where it is exported.
    if is_symbolic_dim(bad.shape[0]):
        return jax.lax.scan(advance, bad_start, (bad, resets), reverse=reverse)[1]

    # A step is a map poison -> bad | (poison & ~reset); maps compose associatively.
    def compose(first, then):
        bad_1, keep_1 = first
        bad_2, keep_2 = then
        return bad_2 | (bad_1 & keep_2), keep_1 & keep_2

    happened, kept = jax.lax.associative_scan(compose, (bad, ~resets), reverse=reverse)
    return happened | (kept & bad_start[None])


def in_parts(parts: Parts, bad: jax.Array, resets: jax.Array, bad_start: jax.Array) -> jax.Array:
    """``since_reset`` where time may be shared out over devices, which then meet once."""
    if parts:
        here = since_reset(bad, resets, jnp.zeros_like(bad[0]), parts.reverse)
        own = here[0 if parts.reverse else -1], jnp.any(resets, axis=0)
        every = parts.gather(tuple(x[..., None].astype(jnp.int32) for x in own))
        happened, reset = (x[..., 0] != 0 for x in every)
        after = since_reset(happened, reset, bad_start, parts.reverse)
        bad_start = parts.before(after, bad_start)
    return since_reset(bad, resets, bad_start, parts.reverse)


def clean(xs: jax.Array, steps: Steps) -> jax.Array:
    """Zeroes the inputs of steps that are not run, so that no NaN enters any arithmetic."""
    taken = steps.taken
    return xs if taken is None else select(taken, xs, jnp.zeros_like(xs))


def outputs(ys: jax.Array, steps: Steps) -> jax.Array:
    """Zeroes skipped outputs (T, *batch, H) and restores poisoned ones."""
    if steps.poisoned is not None:
        ys = poison(ys, steps.poisoned)
    if steps.valid is not None:
        ys = select(steps.valid, ys, jnp.zeros_like(ys))
    return ys


def poison(carry: Arrays, poisoned: jax.Array | None) -> Arrays:
    """Writes NaN where a carry (..., width) is poisoned, bool (...)."""
    if poisoned is None:
        return carry

    def write(x: jax.Array) -> jax.Array:
        where = poisoned.reshape(poisoned.shape + (1,) * (x.ndim - poisoned.ndim))
        # A NaN comes to be only where one is written: jax_debug_nans would stop at a constant.
        one = jnp.where(where, 0.0, 1.0).astype(x.dtype)
        return jnp.where(where, jnp.zeros_like(one) / one, x)

    return jax.tree.map(write, carry)


def skipping_nan(function: Callable[..., jax.Array], *rows: jax.Array) -> jax.Array:
    """Applies a function of every step's features, and writes NaN where one of them is NaN.

    So would most functions; but their derivatives there are NaN too, and zero times NaN is NaN.

    Args:
      function: of arrays (..., width), along their last axis.
      *rows: its arguments.
    """
    bad = jnp.stack([jnp.isnan(x).any(axis=-1) for x in rows]).any(axis=0)
    return poison(function(*(select(bad, jnp.zeros_like(x), x) for x in rows)), bad)


def cuts(steps: int, every: int, parts: Parts) -> jax.Array:
    """bool (T,), True at the first step of every chunk but the first one.

    Args:
      steps: T.
      every: steps per chunk.
      parts: how time is shared out over devices, and which way it runs.
    """
    order = jnp.arange(steps, dtype=jnp.int32)
    order = order[::-1] if parts.reverse else order
    order = parts.steps_before(steps) + order
    return (order % every == 0) & (order > 0)


def with_first(first: Arrays, after: Arrays, axis: int, reverse: bool) -> Arrays:
    """Puts the first carry before those after every step (T, ...); time goes to ``axis``."""

    def prepend(first: jax.Array, after: jax.Array) -> jax.Array:
        parts = [first[None], after]
        return jnp.moveaxis(jnp.concatenate(parts[::-1] if reverse else parts), 0, axis)

    return jax.tree.map(prepend, first, after)
