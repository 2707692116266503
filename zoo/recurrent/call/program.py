"""A leaf layer's call as one pure function, compiled once per program and shapes."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.call import conditions, placement, sequence
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
    axis = program.time_axis
    every_step = given.mask, given.resets, given.intervals
    xs, *every_step = _time_first((xs, *every_step), axis)
    drawn = {} if dropout_key is None else _draw(program, dropout_key, xs, initial)
    products = drawn.pop("products", None)

    def part(axes: tuple[str, ...]) -> sequence.Run:
        engine = program.engine
        engine = dataclasses.replace(engine, sequence_axes=(*engine.sequence_axes, *axes))
        return functools.partial(_part, dataclasses.replace(program, engine=engine))

    axes = sequence.explicit_axes(xs, 0)
    advance = sequence.shared_out(part, xs, axes, program.feature_axes)
    rows = initial, start, given.seq_lengths, products
    final, (ys, past) = advance(weights, rows, (xs, *every_step, drawn))
    ys = jnp.moveaxis(ys, 0, axis)
    return final, (ys, past) if program.history else ys


def _part(program: Program, weights: Any, rows: Any, steps: Any) -> tuple[Carry, Any]:
    """Runs a program over all of time, or over this device's part of it; time comes first.

    Args:
      program: see ``Program``.
      weights: the layer's parameters by name.
      rows: what has no time axis: the initial and the first carry, lengths, a mask for products.
      steps: what has one: inputs, mask, resets, intervals, and the masks of ``_draw``.

    Returns:
      The last carry of all; ys; and the history of the carry, or None.
    """
    step, engine, features = program.step, program.engine, program.feature_axes
    initial, start, seq_lengths, products = rows
    xs, mask, resets, intervals, drawn = steps
    dtypes = tuple(x.dtype for x in initial)
    initial = placement.like_data(initial, xs, features)
    placed = initial if start is None else placement.like_data(start, xs, features)
    start = tuple(x.astype(dtype) for x, dtype in zip(placed, dtypes, strict=True))

    first = start
    # Cast first: what is finite in float32 may not be so in float16.
    xs = xs.astype(engine.dtype)
    timed = step.cell.reads_intervals and (step.cell.needs_intervals or intervals is not None)
    if timed:
        # A feature more, so that it is cleaned, differentiated and cut into blocks as inputs are.
        elapsed = jnp.ones_like(xs[..., 0]) if intervals is None else intervals.astype(xs.dtype)
        xs = jnp.concatenate([xs, elapsed[..., None]], axis=-1)
    known = conditions.resolve(xs, start, seq_lengths, mask, resets, engine.parts, features)
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
        signals["cut"] = conditions.cuts(xs.shape[0], program.truncate_every, engine.parts)
    if "inputs" in drawn and timed:
        xs, elapsed = xs[..., :-1], xs[..., -1:]
        dropped = _dropped(drawn["inputs"], program.dropout_rate, xs)
        xs = jnp.concatenate([dropped, elapsed], axis=-1)
    elif "inputs" in drawn:
        xs = _dropped(drawn["inputs"], program.dropout_rate, xs)
    if products is not None:
        fixed["recurrent_dropout"] = products
    if "zoneout" in drawn:
        kept = zip(drawn["zoneout"], start, strict=True)
        signals["zoneout"] = tuple(placement.match(own, x[None]) for own, x in kept)

    advance = placement.over_devices(functools.partial(engine.run, step), features)
    final, after, ys = advance(weights, fixed, start, xs, signals)
    final = engine.parts.of_last(conditions.poison(final, known.poisoned_carry))
    ys = conditions.outputs((after[-1] if ys is None else ys).astype(engine.dtype), known)
    if not program.history:
        return final, (ys, None)
    after = conditions.poison(after, known.poisoned)
    past = conditions.with_first(first, after, program.time_axis, engine.reverse)
    return final, (ys, past)


def drop(key: jax.Array, rate: float, xs: jax.Array) -> jax.Array:
    """Zeroes elements at random, each with probability ``rate``, and scales the others up."""
    return _dropped(jax.random.bernoulli(key, 1 - rate, xs.shape), rate, xs)


def _dropped(kept: jax.Array, rate: float, xs: jax.Array) -> jax.Array:
    return jnp.where(placement.match(kept, xs), xs / (1 - rate), jnp.zeros_like(xs))


def _time_first(tree: Any, axis: int) -> Any:
    return tree if axis == 0 else jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), tree)


def _draw(program: Program, key: jax.Array, xs: jax.Array, initial: Carry) -> dict[str, Any]:
    """Draws every random mask of a call, outside of the time loop.

    They are drawn for all of time at once where types say that devices have parts of it, so that
    they do not depend on the number of devices.
    """
    for_inputs, for_products, for_zoneout = jax.random.split(key, 3)
    drawn: dict[str, Any] = {}
    if program.dropout_rate:
        drawn["inputs"] = jax.random.bernoulli(for_inputs, 1 - program.dropout_rate, xs.shape)
    if program.recurrent_dropout_rate:
        keep = 1 - program.recurrent_dropout_rate
        kept = jax.random.bernoulli(for_products, keep, initial[-1].shape)
        drawn["products"] = kept.astype(initial[-1].dtype) / keep
    if rate := program.step.zoneout_rate:
        keys = jax.random.split(for_zoneout, len(initial))
        drawn["zoneout"] = tuple(
            jax.random.bernoulli(k, rate, (xs.shape[0], *x.shape))
            for k, x in zip(keys, initial, strict=True)
        )
    return drawn
