"""One step of a layer: a cell's step under its conditions (resets, masks, truncation, dropout)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from zoo.recurrent.cell import Carry, Cell, Product, Weights

Signals = Mapping[str, Any]
Arrays = TypeVar("Arrays")
"""An array, or a tree of arrays."""


def select(condition: jax.Array, yes: Arrays, no: Arrays) -> Arrays:
    """Chooses between two carries per batch element; gradients of the other side are exactly 0.

    Args:
      condition: bool (*batch,).
      yes: tree of arrays (*batch, ...).
      no: tree like ``yes``.
    """

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        trailing = (1,) * (a.ndim - condition.ndim)
        return jnp.where(condition.reshape(condition.shape + trailing), a, b)

    return jax.tree.map(choose, yes, no)


def before_step(carry: Carry, signals: Signals, initial: Carry | None) -> Carry:
    """Applies what happens to a carry before a step is taken: resets and truncation."""
    if "reset" in signals:
        assert initial is not None
        carry = select(signals["reset"], initial, carry)
    if "cut" in signals:
        cut = jax.lax.stop_gradient(carry)
        carry = jax.tree.map(lambda a, b: jnp.where(signals["cut"], a, b), cut, carry)
    return carry


def after_step(before: Carry, after: Carry, signals: Signals) -> Carry:
    """Applies what happens to a carry after a step was taken: a masked step leaves no trace."""
    return select(signals["mask"], after, before) if "mask" in signals else after


@dataclasses.dataclass(frozen=True)
class Step:
    """A cell's step as the engines run it; hashable, and the same for all of them.

    Attributes:
      cell: the equations.
      work_dtype: dtype of gates, sums and the state's arithmetic.
      zoneout_rate: probability of keeping the previous state, per element (Krueger et al. 2017).
    """

    cell: Cell
    work_dtype: jnp.dtype
    zoneout_rate: float = 0.0

    def __call__(
        self,
        recur: Product,
        carry: Carry,
        u: Mapping[str, jax.Array],
        signals: Signals,
        fixed: Mapping[str, Any],
        weights: Weights,
    ) -> Carry:
        """Takes one step.

        Args:
          recur: multiplies by the recurrent kernels.
          carry: arrays (*batch, width), in the carry's dtype.
          u: this step's input projections, each (*batch, width).
          signals: this step's conditions, where there are any: ``reset`` and ``mask`` bool
            (*batch,), ``cut`` bool (), ``zoneout`` a tuple of bool arrays like the carry.
          fixed: what is the same for every step: ``initial``, the carry of a reset, and
            ``recurrent_dropout``, what h is multiplied by, (*batch, width of h).
          weights: biases and scales by parameter name.

        Returns:
          The new carry, with the dtypes of ``carry``.
        """
        entered = before_step(carry, signals, fixed.get("initial"))
        recur = self.cell.of_state(recur, weights)
        if "recurrent_dropout" in fixed:
            recur = _Dropped(recur, self.cell.hidden, fixed["recurrent_dropout"])
        state = tuple(x.astype(self.work_dtype) for x in entered)
        new = self.cell.step(recur, state, u, weights)
        new = tuple(n.astype(x.dtype) for n, x in zip(new, entered, strict=True))
        new = self._zone_out(entered, new, signals)
        return after_step(carry, new, signals)

    def _zone_out(self, old: Carry, new: Carry, signals: Signals) -> Carry:
        if not self.zoneout_rate:
            return new
        return self.cell.zone_out(signals.get("zoneout", self.zoneout_rate), old, new)


class _Dropped:
    """Products of the hidden state, which is multiplied by one dropout mask for all steps."""

    def __init__(self, recur: Product, names: tuple[str, ...], scale: jax.Array):
        self.recur, self.names, self.scale = recur, names, scale

    def __call__(self, a: jax.Array, **addends: jax.Array | None) -> tuple[jax.Array, ...]:
        dropped = a * self.scale.astype(a.dtype) if set(addends) <= set(self.names) else a
        return self.recur(dropped, **addends)
