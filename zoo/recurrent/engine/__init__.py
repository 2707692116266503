"""Engines that run a step over time: the plain convention and the fused one, and which to take."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jax.export import is_symbolic_dim

from zoo.recurrent.cell import Carry, Cell, LinearCell
from zoo.recurrent.engine import fused as _fused
from zoo.recurrent.engine import linear as _linear
from zoo.recurrent.engine import memory
from zoo.recurrent.engine import reference as _reference
from zoo.recurrent.engine.affine import Recurrence
from zoo.recurrent.engine.backend import platform
from zoo.recurrent.engine.kernels import linear_obstacle, obstacle, target
from zoo.recurrent.engine.kernels import run as _kernels
from zoo.recurrent.engine.parts import Parts
from zoo.recurrent.engine.products import Arithmetic, Unstacked, small_weights, stack_kernels
from zoo.recurrent.engine.sharded import Shared, sharded
from zoo.recurrent.engine.step import Step

IMPLEMENTATIONS = ("auto", "scan", "fused")
LINEAR_IMPLEMENTATIONS = (*IMPLEMENTATIONS, "parallel", "kernel")
KERNEL_IMPLEMENTATIONS = (*IMPLEMENTATIONS, "kernel")

# Platforms where the fused engine was measured to be faster (docs/performance.md).
_FUSED_PLATFORMS = ("cpu", "gpu")

# Of a linear recurrence; all others are loops.
_WAYS = {"parallel": "tree", "kernel": "kernel"}


@dataclasses.dataclass(frozen=True)
class Engine:
    """How a layer is run over time; hashable.

    Attributes:
      implementation: "scan", "fused", "parallel", "kernel", or "auto" for the one that was
        measured to be fastest.
      reverse: whether time runs backwards.
      unroll: steps per iteration of the time loop.
      checkpoint_every: most steps between the carries kept for the backward pass, or None.
      dtype: dtype of products' operands.
      precision: of ``jax.lax.dot_general``.
      history: whether the carry after every step is asked for, beside what steps put out.
      sequence_axes: mesh axes that time is shared out over, inside of a ``jax.shard_map``; for
        linear recurrences, and not for "scan".
    """

    implementation: str
    reverse: bool
    unroll: int
    checkpoint_every: int | None
    dtype: Any
    precision: jax.lax.PrecisionLike
    history: bool = False
    sequence_axes: tuple[str, ...] = ()

    @property
    def parts(self) -> Parts:
        """How time is shared out over devices."""
        return Parts(self.sequence_axes, self.reverse)

    def chosen(self, cell: Cell) -> str:
        """The implementation; with "kernel", another runs where there is an obstacle to it.

        The compiler cannot spread a kernel over devices, and what is traced does not say on how
        many it will run, so that "auto" is a kernel only where there is one device.
        """
        if self.implementation != "auto":
            return self.implementation
        if platform() == "gpu" and target.target().devices == 1:
            return "kernel"
        return _without_kernel(cell)

    def run(
        self,
        step: Step,
        weights: Mapping[str, Mapping[str, jax.Array]],
        fixed: Mapping[str, Any],
        start: Carry,
        xs: jax.Array,
        signals: Mapping[str, Any],
    ) -> tuple[Carry, Carry, jax.Array | None]:
        """Runs ``step`` over time.

        Args:
          step: what is done at every step.
          weights: the parameters by name.
          fixed: what is the same for every step, see ``Step``.
          start: the first carry, arrays (*batch, width).
          xs: inputs (T, *batch, D), T >= 1, of ``dtype``.
          signals: conditions of every step, arrays (T, ...), see ``Step``.

        Returns:
          The last carry; the carry after every step, arrays (T, *batch, width), or nothing where a
          kernel ran; and what every step puts out, or None where that is the last array of the
          carry.
        """
        if not isinstance(step.cell, LinearCell):
            return self._run(step, weights, fixed, start, xs, signals)
        # Its carry is as wide as its sums until the run is over.
        fixed, wide = jax.tree.map(lambda x: x.astype(step.work_dtype), (dict(fixed), start))
        final, after, ys = self._run(step, weights, fixed, wide, xs, signals)
        if ys is None and start[-1].dtype != step.work_dtype:
            ys = after[-1]
        final, after = (
            tuple(x.astype(first.dtype) for x, first in zip(carry, start, strict=True))
            for carry in (final, after)
        )
        return final, after, ys

    def _run(
        self,
        step: Step,
        weights: Mapping[str, Mapping[str, jax.Array]],
        fixed: Mapping[str, Any],
        start: Carry,
        xs: jax.Array,
        signals: Mapping[str, Any],
    ) -> tuple[Carry, Carry, jax.Array | None]:
        """``run``, in the implementation that was chosen; one step is one step in all of them."""
        cell, chosen = step.cell, self.chosen(step.cell)
        if chosen == "kernel" and isinstance(cell, LinearCell):
            chosen = chosen if linear_obstacle(step, start, xs) is None else _without_kernel(cell)
        arithmetic = Arithmetic(self.precision, step.work_dtype)
        alone = not is_symbolic_dim(xs.shape[0]) and xs.shape[0] == 1 and not self.parts
        if isinstance(cell, LinearCell) and chosen != "scan" and not alone:
            weights = jax.tree.map(lambda x: x.astype(step.work_dtype), weights)
            # How a tree is built follows from T, which is no number where it is exported.
            way = "loop" if is_symbolic_dim(xs.shape[0]) else _WAYS.get(chosen, "loop")
            how = Recurrence(self.reverse, way, cell.complex_pair, "reset" in signals, self.unroll)
            whole = way != "loop"
            keep, length = memory.linear(start, xs.shape[0], whole, self.checkpoint_every)
            plan = _linear.Plan(step, arithmetic, self.dtype, how, length, keep)
            if self.parts:
                shared = Shared(plan, self.parts)
                return sharded(shared, weights, dict(fixed), start, xs, dict(signals))
            return _linear.linear(plan, weights, dict(fixed), start, xs, dict(signals))
        weights = {
            name: {
                leaf: x.astype(self.dtype if leaf == "kernel" else step.work_dtype)
                for leaf, x in own.items()
            }
            for name, own in weights.items()
        }
        if alone:
            product = Unstacked(arithmetic, weights)
            return _one_step(step, product, weights, fixed, start, xs, signals)
        if chosen == "scan":
            plan = _reference.Plan(
                step, arithmetic, self.reverse, self.checkpoint_every, self.unroll
            )
            return _reference.scan(plan, weights, fixed, start, xs, signals)
        cut = memory.gated(step, xs, self.checkpoint_every, self.unroll)
        plan = _fused.Plan(step, arithmetic, self.reverse, *cut)
        if chosen == "kernel" and obstacle(self, step, start, xs, signals, fixed) is None:
            plan = _kernels.Plan(plan, self.dtype)
            final, ys = _kernels.kernel(plan, weights, dict(fixed), start, xs, dict(signals))
            return final, (), ys
        stacks = stack_kernels(cell, weights)
        small = small_weights(weights)
        out = _fused.fused(plan, stacks, small, dict(fixed), start, xs, dict(signals))
        return *out, None


def _without_kernel(cell: Cell) -> str:
    """What was measured to be fastest where no kernel can be run."""
    # A loop over steps of a linear recurrence was up to 1,000 times slower on a GPU.
    if isinstance(cell, LinearCell) and platform() != "cpu":
        return "parallel"
    return "fused" if platform() in _FUSED_PLATFORMS else "scan"


def _one_step(
    step: Step,
    product: Unstacked,
    weights: Mapping[str, Mapping[str, jax.Array]],
    fixed: Mapping[str, Any],
    start: Carry,
    xs: jax.Array,
    signals: Mapping[str, Any],
) -> tuple[Carry, Carry, jax.Array | None]:
    """A sequence of one step (streaming), without a loop."""
    x, now = jax.tree.map(lambda x: x[0], (xs, dict(signals)))
    u = step.cell.project(product, x, weights)
    carry = step(product, start, u, now, fixed, weights)
    y = step.cell.output(product, carry, u, weights)
    return carry, *jax.tree.map(lambda x: x[None], (carry, y))
