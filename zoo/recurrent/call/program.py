"""A leaf layer's call as one pure function, compiled once per program and shapes."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.call import conditions, placement
from zoo.recurrent.call.conditions import Conditions
from zoo.recurrent.cell import Carry
from zoo.recurrent.engine import Engine
from zoo.recurrent.engine.step import Step


@dataclasses.dataclass(frozen=True)
class Program:
    """Everything about a call that is no array; hashable, so that it keys the compiled function.

    Attributes:
      step: what is done at every step.
      engine: how steps follow one another.
      time_axis: where time is in xs and ys, counted from the front.
      truncate_every: steps after which the gradient is cut, or None.
      dropout_rate: of the inputs, when a key is given.
      recurrent_dropout_rate: of the hidden state inside products, when a key is given.
      history: whether to return the history of the carry beside ys.
      feature_axes: how many of the last axes of xs, and of the carry, are features.
    """

    step: Step
    engine: Engine
    time_axis: int
    truncate_every: int | None = None
    dropout_rate: float = 0.0
    recurrent_dropout_rate: float = 0.0
    history: bool = False
    feature_axes: int = 1


@functools.partial(jax.jit, static_argnums=0)
def run(
    program: Program,
    weights: Mapping[str, Mapping[str, jax.Array]],
    initial: Carry,
    start: Carry | None,
    xs: jax.Array,
    given: Conditions,
    dropout_key: jax.Array | None = None,
) -> tuple[Carry, Any]:
    """Runs a program.

    Args:
      program: see ``Program``.
      weights: the layer's parameters by name.
      initial: the layer's initial carry, arrays (*batch, width).
      start: another first carry, or None.
      xs: inputs with time at ``program.time_axis``, at least one step.
      given: lengths, mask, resets and intervals, any of which may be None.
      dropout_key: a key where dropouts are on, else None.

    Returns:
      The last carry; and ys, or with ``program.history`` the pair of ys and the carry before the
      first and after every step. Time is at ``program.time_axis``.
    """
    step, engine, axis = program.step, program.engine, program.time_axis
    dtypes = tuple(x.dtype for x in initial)
    seq_lengths, *every_step = given.seq_lengths, given.mask, given.resets, given.intervals
    xs, mask, resets, intervals = _time_first((xs, *every_step), axis)
    initial = placement.like_data(initial, xs, program.feature_axes)
    placed = initial if start is None else placement.like_data(start, xs, program.feature_axes)
    start = tuple(x.astype(dtype) for x, dtype in zip(placed, dtypes, strict=True))

    first = start
    # Cast first: what is finite in float32 may not be so in float16.
    xs = xs.astype(engine.dtype)
    timed = step.cell.reads_intervals and (step.cell.needs_intervals or intervals is not None)
    if timed:
        # A feature more, so that it is cleaned, differentiated and cut into blocks as inputs are.
        elapsed = jnp.ones_like(xs[..., 0]) if intervals is None else intervals.astype(xs.dtype)
        xs = jnp.concatenate([xs, elapsed[..., None]], axis=-1)
    known = conditions.resolve(
        xs, start, seq_lengths, mask, resets, engine.reverse, program.feature_axes
    )
    xs = conditions.clean(xs, known)
    if known.poisoned is not None:
        start = tuple(jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x)) for x in start)

    signals: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    if known.taken is not None:
        signals["mask"] = known.taken
    if known.resets is not None:
        signals["reset"] = known.resets
        fixed["initial"] = initial
    if program.truncate_every is not None:
        signals["cut"] = conditions.cuts(xs.shape[0], program.truncate_every, engine.reverse)
    if dropout_key is not None:
        xs = _draw_dropouts(program, dropout_key, xs, timed, start, signals, fixed)

    advance = placement.over_devices(functools.partial(engine.run, step), program.feature_axes)
    final, after, ys = advance(weights, fixed, start, xs, signals)
    final = conditions.poison(final, known.poisoned_carry)
    ys = conditions.outputs((after[-1] if ys is None else ys).astype(engine.dtype), known)
    ys = jnp.moveaxis(ys, 0, axis)
    if not program.history:
        return final, ys
    after = conditions.poison(after, known.poisoned)
    return final, (ys, conditions.with_first(first, after, axis, engine.reverse))


def drop(key: jax.Array, rate: float, xs: jax.Array) -> jax.Array:
    """Zeroes elements at random, each with probability ``rate``, and scales the others up."""
    kept = placement.match(jax.random.bernoulli(key, 1 - rate, xs.shape), xs)
    return jnp.where(kept, xs / (1 - rate), jnp.zeros_like(xs))


def _time_first(tree: Any, axis: int) -> Any:
    return tree if axis == 0 else jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), tree)


def _draw_dropouts(
    program: Program,
    key: jax.Array,
    xs: jax.Array,
    timed: bool,
    start: Carry,
    signals: dict[str, Any],
    fixed: dict[str, Any],
) -> jax.Array:
    """Draws every random mask of a call, outside of the time loop; returns the dropped inputs.

    With ``timed``, the last feature of xs is the elapsed time.
    """
    for_inputs, for_products, for_zoneout = jax.random.split(key, 3)
    if program.dropout_rate:
        if timed:
            xs, elapsed = xs[..., :-1], xs[..., -1:]
            dropped = drop(for_inputs, program.dropout_rate, xs)
            xs = jnp.concatenate([dropped, elapsed], axis=-1)
        else:
            xs = drop(for_inputs, program.dropout_rate, xs)
    if program.recurrent_dropout_rate:
        keep = 1 - program.recurrent_dropout_rate
        kept = jax.random.bernoulli(for_products, keep, start[-1].shape)
        fixed["recurrent_dropout"] = kept.astype(start[-1].dtype) / keep
    if program.step.zoneout_rate:
        keys = jax.random.split(for_zoneout, len(start))
        signals["zoneout"] = tuple(
            placement.match(
                jax.random.bernoulli(k, program.step.zoneout_rate, (xs.shape[0], *x.shape)), x[None]
            )
            for k, x in zip(keys, start, strict=True)
        )
    return xs
