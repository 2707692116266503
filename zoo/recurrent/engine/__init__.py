"""Engines that run a step over time: the plain convention and the fused one, and which to take."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.export import is_symbolic_dim

from zoo.recurrent.cell import Carry, Cell
from zoo.recurrent.engine import fused as _fused
from zoo.recurrent.engine import reference as _reference
from zoo.recurrent.engine.blocks import at_most, block_length
from zoo.recurrent.engine.products import Arithmetic, Unstacked, small_weights, stack_kernels
from zoo.recurrent.engine.step import Step

IMPLEMENTATIONS = ("auto", "scan", "fused")

# Of a block's recurrent sums. With twice that, temporaries of a batch of 32 pass the 32 MiB above
# which glibc maps every allocation afresh (docs/performance.md).
_BLOCK_BYTES = 3 * 2**19

# Platforms where the fused engine was measured to be at least as fast (docs/performance.md).
_FUSED_PLATFORMS = ("cpu",)


@dataclasses.dataclass(frozen=True)
class Engine:
    """How a layer is run over time; hashable.

    Attributes:
      implementation: "scan", "fused", or "auto" for the one that was measured to be faster.
      reverse: whether time runs backwards.
      unroll: steps per iteration of the time loop.
      checkpoint_every: most steps between the carries kept for the backward pass, or None.
      dtype: dtype of products' operands.
      precision: of ``jax.lax.dot_general``.
    """

    implementation: str
    reverse: bool
    unroll: int
    checkpoint_every: int | None
    dtype: Any
    precision: jax.lax.PrecisionLike

    def chosen(self) -> str:
        """The implementation that runs: "scan" or "fused"."""
        if self.implementation != "auto":
            return self.implementation
        return "fused" if jax.default_backend() in _FUSED_PLATFORMS else "scan"

    def run(
        self,
        step: Step,
        weights: Mapping[str, Mapping[str, jax.Array]],
        fixed: Mapping[str, Any],
        start: Carry,
        xs: jax.Array,
        signals: Mapping[str, Any],
    ) -> tuple[Carry, Carry]:
        """Runs ``step`` over time.

        Args:
          step: what is done at every step.
          weights: the parameters by name.
          fixed: what is the same for every step, see ``Step``.
          start: the first carry, arrays (*batch, width).
          xs: inputs (T, *batch, D), T >= 1, of ``dtype``.
          signals: conditions of every step, arrays (T, ...), see ``Step``.

        Returns:
          The last carry, and the carry after every step: arrays (T, *batch, width).
        """
        weights = {
            name: {
                leaf: x.astype(self.dtype if leaf == "kernel" else step.work_dtype)
                for leaf, x in own.items()
            }
            for name, own in weights.items()
        }
        arithmetic = Arithmetic(self.precision, step.work_dtype)
        if not is_symbolic_dim(xs.shape[0]) and xs.shape[0] == 1:
            return _one_step(
                step, Unstacked(arithmetic, weights), weights, fixed, start, xs, signals
            )
        if self.chosen() == "scan":
            plan = _reference.Plan(
                step, arithmetic, self.reverse, self.checkpoint_every, self.unroll
            )
            return _reference.scan(plan, weights, fixed, start, xs, signals)
        keep, length = self._memory(step, xs)
        hoist = _hoists(xs, step.cell)
        plan = _fused.Plan(step, arithmetic, self.reverse, length, keep, hoist, self.unroll)
        stacks = stack_kernels(step.cell, weights)
        small = small_weights(weights)
        return _fused.fused(plan, stacks, small, dict(fixed), start, xs, dict(signals))

    def _memory(self, step: Step, xs: jax.Array) -> tuple[str, int]:
        """What the backward pass keeps, and the steps per block, as measured on CPU.

        Keeping the products saves making them again, a fifth of the time where they are large and
        a tenth of an LSTM's in any case; beyond 64 MiB, memory is worth more (docs/performance.md).
        Where a step is small, so are its products, and writing them takes as long.
        """
        steps, batch, features = xs.shape[0], math.prod(xs.shape[1:-1]), step.cell.features
        if is_symbolic_dim(steps) or is_symbolic_dim(batch):
            keep, length = "carries", block_length(steps, 32)
        else:
            kernels = step.cell.kernels
            widths = (kernels[name].width for group in step.cell.products for name in group)
            sums = sum(widths) * step.work_dtype.itemsize * batch
            length = block_length(steps, max(8, _BLOCK_BYTES // max(sums, 1)))
            worth = features >= 256 or (batch * features >= 1024 and steps * sums <= 2**26)
            keep = "products" if worth else "carries"
        if self.checkpoint_every is not None:
            # A longer block costs more than the carries that it saves, below 30,000 steps.
            return "blocks", at_most(length, self.checkpoint_every)
        return keep, length


def _hoists(xs: jax.Array, cell: Cell) -> bool:
    """Whether inputs are projected by one product for all steps of a block, or step by step.

    A number that leaves the loop costs eight bytes, written and read. One that stays costs D
    multiply-adds on one core, in place of all cores, and, since every step reads the kernel again,
    4 * D / batch bytes from the core's cache. While it moves one of the eight bytes, a core makes
    about 16 multiply-adds, or reads eight bytes of its cache (docs/performance.md).
    """
    batch = math.prod(xs.shape[1:-1])
    if is_symbolic_dim(xs.shape[-1]) or is_symbolic_dim(batch):
        return True
    if cell.kernels[cell.inputs[0]].window:
        # What a window reads is several times as large as xs, and would be written for a block.
        return False
    return xs.shape[-1] * (1 / (8 * 16) + 1 / (8 * 2 * max(batch, 1))) >= 1


def _one_step(
    step: Step,
    product: Unstacked,
    weights: Mapping[str, Mapping[str, jax.Array]],
    fixed: Mapping[str, Any],
    start: Carry,
    xs: jax.Array,
    signals: Mapping[str, Any],
) -> tuple[Carry, Carry]:
    """A sequence of one step (streaming), without a loop."""
    x, now = jax.tree.map(lambda x: x[0], (xs, dict(signals)))
    u = step.cell.project(product, x, weights)
    carry = step(product, start, u, now, fixed, weights)
    return carry, jax.tree.map(lambda x: x[None], carry)
