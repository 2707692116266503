"""Engines that run a step over time: the plain convention and the fused one, and which to take."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.export import is_symbolic_dim

from zoo.recurrent.cell import Carry, Cell, LinearCell
from zoo.recurrent.engine import fused as _fused
from zoo.recurrent.engine import linear as _linear
from zoo.recurrent.engine import reference as _reference
from zoo.recurrent.engine.blocks import at_most, block_length
from zoo.recurrent.engine.kernels import obstacle
from zoo.recurrent.engine.kernels import run as _kernels
from zoo.recurrent.engine.parts import Parts
from zoo.recurrent.engine.products import Arithmetic, Unstacked, small_weights, stack_kernels
from zoo.recurrent.engine.recurrence import Recurrence
from zoo.recurrent.engine.sharded import Shared, sharded
from zoo.recurrent.engine.step import Step

IMPLEMENTATIONS = ("auto", "scan", "fused")
LINEAR_IMPLEMENTATIONS = (*IMPLEMENTATIONS, "parallel")
KERNEL_IMPLEMENTATIONS = (*IMPLEMENTATIONS, "kernel")

# Of a block's recurrent sums. With twice that, temporaries of a batch of 32 pass the 32 MiB above
# which glibc maps every allocation afresh (docs/performance.md).
_BLOCK_BYTES = 3 * 2**19

# Of a block's elements in a linear recurrence: a and b as they lie in a core's cache.
_ELEMENT_BYTES = 2**21

# Platforms where the fused engine was measured to be faster (docs/performance.md).
_FUSED_PLATFORMS = ("cpu", "gpu")

# On a GPU, launching a step's kernels takes longer than running them. Where eight steps stand in an
# iteration, gradients take 0.5 to 0.8 of the time. A block of 64 steps takes 1.0 to 1.1 times as
# long as one of all steps, whose input projections need memory for all of them.
_GPU_UNROLL = 8
_GPU_BLOCK_BYTES = 2**26
_GPU_BLOCK_STEPS = 64


@dataclasses.dataclass(frozen=True)
class Engine:
    """How a layer is run over time; hashable.

    Attributes:
      implementation: "scan", "fused", "parallel", "kernel", or "auto" for the one of the first
        three that was measured to be faster.
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
        """The implementation; with "kernel", "fused" runs where ``obstacle`` finds something."""
        if self.implementation != "auto":
            return self.implementation
        platform = jax.default_backend()
        # A loop over steps of a linear recurrence was up to 1,000 times slower on a GPU.
        if isinstance(cell, LinearCell) and platform != "cpu":
            return "parallel"
        return "fused" if platform in _FUSED_PLATFORMS else "scan"

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
        arithmetic = Arithmetic(self.precision, step.work_dtype)
        alone = not is_symbolic_dim(xs.shape[0]) and xs.shape[0] == 1 and not self.parts
        if isinstance(cell, LinearCell) and chosen != "scan" and not alone:
            weights = jax.tree.map(lambda x: x.astype(step.work_dtype), weights)
            how, length, keep = self._linear_memory(cell, chosen, start, xs.shape[0], signals)
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
        plan = self._fused_plan(step, arithmetic, xs)
        if chosen == "kernel" and obstacle(self, step, start, xs, signals, fixed) is None:
            plan = _kernels.Plan(plan, self.dtype)
            final, ys = _kernels.kernel(plan, weights, dict(fixed), start, xs, dict(signals))
            return final, (), ys
        stacks = stack_kernels(cell, weights)
        small = small_weights(weights)
        out = _fused.fused(plan, stacks, small, dict(fixed), start, xs, dict(signals))
        return *out, None

    def _fused_plan(self, step: Step, arithmetic: Arithmetic, xs: jax.Array) -> _fused.Plan:
        if jax.default_backend() == "gpu":
            keep, length = self._gpu_memory(step, xs)
            hoist = True
            unroll = self.unroll if is_symbolic_dim(xs.shape[0]) else max(self.unroll, _GPU_UNROLL)
        else:
            keep, length = self._memory(step, xs)
            hoist, unroll = _hoists(xs, step.cell), self.unroll
        return _fused.Plan(step, arithmetic, self.reverse, length, keep, hoist, unroll)

    def _linear_memory(
        self, cell: LinearCell, chosen: str, start: Carry, steps: Any, signals: Mapping[str, Any]
    ) -> tuple[Recurrence, Any, str]:
        """How a linear recurrence is run in a block, the steps per block, and what is kept."""
        # How a tree is built follows from T, which is no number where it is exported.
        tree = chosen == "parallel" and not is_symbolic_dim(steps)
        how = Recurrence(self.reverse, tree, cell.complex_pair, "reset" in signals, self.unroll)
        length, row = steps, sum(2 * x.size * x.dtype.itemsize for x in start)
        if not tree and (is_symbolic_dim(steps) or is_symbolic_dim(row)):
            length = block_length(steps, 64)
        elif not tree:
            length = block_length(steps, max(16, int(_ELEMENT_BYTES // max(row, 1))))
        if self.checkpoint_every is not None:
            return how, at_most(length, self.checkpoint_every), "blocks"
        return how, length, "carries"

    def _memory(self, step: Step, xs: jax.Array) -> tuple[str, int]:
        """What the backward pass keeps, and the steps per block, as measured on CPU.

        Keeping the products saves making them again, a fifth of the time where they are large and
        a tenth of an LSTM's in any case; beyond 64 MiB, memory is worth more (docs/performance.md).
        Where a step is small, so are its products, and writing them takes as long.
        """
        steps, batch, features = xs.shape[0], math.prod(xs.shape[1:-1]), step.cell.features
        sums = _bytes_of_sums(step, batch)
        if is_symbolic_dim(steps) or is_symbolic_dim(batch):
            keep, length = "carries", block_length(steps, 32)
        else:
            length = block_length(steps, max(8, _BLOCK_BYTES // max(sums, 1)))
            worth = features >= 256 or (batch * features >= 1024 and steps * sums <= 2**26)
            keep = "products" if worth else "carries"
        return self._checkpointed(keep, length)

    def _gpu_memory(self, step: Step, xs: jax.Array) -> tuple[str, int]:
        """What the backward pass keeps, and the steps per block, as measured on a GPU."""
        steps, batch = xs.shape[0], math.prod(xs.shape[1:-1])
        if is_symbolic_dim(steps) or is_symbolic_dim(batch):
            length = block_length(steps, _GPU_BLOCK_STEPS)
        else:
            fill = _GPU_BLOCK_BYTES // max(_bytes_of_sums(step, batch), 1)
            length = block_length(steps, max(_GPU_BLOCK_STEPS, fill))
        return self._checkpointed("products", length)

    def _checkpointed(self, keep: str, length: Any) -> tuple[str, Any]:
        if self.checkpoint_every is None:
            return keep, length
        # A longer block costs more than the carries that it saves, below 30,000 steps.
        return "blocks", at_most(length, self.checkpoint_every)


def _bytes_of_sums(step: Step, batch: Any) -> Any:
    """Of all recurrent sums of a step."""
    kernels = step.cell.kernels
    widths = (kernels[name].width for group in step.cell.products for name in group)
    return sum(widths) * step.work_dtype.itemsize * batch


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
) -> tuple[Carry, Carry, jax.Array | None]:
    """A sequence of one step (streaming), without a loop."""
    x, now = jax.tree.map(lambda x: x[0], (xs, dict(signals)))
    u = step.cell.project(product, x, weights)
    carry = step(product, start, u, now, fixed, weights)
    y = step.cell.output(product, carry, u, weights)
    return carry, *jax.tree.map(lambda x: x[None], (carry, y))
