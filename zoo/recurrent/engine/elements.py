"""Conditions as elements: what a step's resets, masks and zoneout make of its a and b."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Carry, LinearCell, Projected, Weights
from zoo.recurrent.engine.step import Signals, Step, select


def elements(
    step: Step,
    u: Projected,
    weights: Weights,
    signals: Signals,
    fixed: Mapping[str, Any],
) -> tuple[Carry, Carry]:
    """The elements of many steps, which do what ``step`` does.

    What a condition excludes is selected, never multiplied, so that neither its values nor its
    gradients matter. The gradient's cuts are none of the elements' business, except where the
    carry of a reset is cut off.

    Args:
      step: a linear cell and its zoneout.
      u: what was projected, arrays (T, ..., width).
      weights: the parameters by name.
      signals: conditions of every step, see ``Step``.
      fixed: what is the same for every step, see ``Step``.

    Returns:
      a and b, arrays (T, ..., width), of the dtype that is computed in; or a of shape (width,).
    """
    cell = step.cell
    assert isinstance(cell, LinearCell)
    a, b = (tuple(x.astype(step.work_dtype) for x in own) for own in cell.pairs(u, weights))
    if step.zoneout_rate or "reset" in signals or "mask" in signals:
        a = tuple(jnp.broadcast_to(x, like.shape) for x, like in zip(a, b, strict=True))
    one, zero = jax.tree.map(jnp.ones_like, a), jax.tree.map(jnp.zeros_like, a)
    if cell.complex_pair:
        one = (one[0], zero[1])
    if step.zoneout_rate:
        keep = signals.get("zoneout", step.zoneout_rate)
        a, b = cell.zone_out(keep, one, a), cell.zone_out(keep, zero, b)
    if "reset" in signals:
        initial = _initial(fixed["initial"], signals, b)
        anew = tuple(map(jnp.add, cell.times(a, initial), b))
        b = select(signals["reset"], anew, b)
        a = select(signals["reset"], zero, a)
    if "mask" in signals:
        a = select(signals["mask"], a, one)
        b = select(signals["mask"], b, zero)
    return a, b


def cuts(signals: Signals) -> jax.Array | None:
    """Before which steps the gradient ends, bool (T, ...): those with a cut that are taken."""
    if "cut" not in signals or "mask" not in signals:
        return signals.get("cut")
    cut, mask = signals["cut"], signals["mask"]
    return mask & jnp.broadcast_to(cut.reshape((-1,) + (1,) * (mask.ndim - 1)), mask.shape)


def _initial(initial: Carry, signals: Signals, like: Carry) -> Carry:
    """The carry of a reset at every step."""
    every = tuple(
        jnp.broadcast_to(x[None], own.shape) for x, own in zip(initial, like, strict=True)
    )
    if "cut" not in signals:
        return every
    cut = signals["cut"]

    def stop(x: jax.Array) -> jax.Array:
        return jnp.where(cut.reshape((-1,) + (1,) * (x.ndim - 1)), jax.lax.stop_gradient(x), x)

    return tuple(map(stop, every))
