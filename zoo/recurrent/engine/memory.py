"""How time is cut and what is kept for the backward pass: rules of bytes, as they were measured."""

import math
from typing import Any, NamedTuple

import jax
from jax.export import is_symbolic_dim

from zoo.recurrent.cell import Carry, Cell
from zoo.recurrent.engine.backend import platform
from zoo.recurrent.engine.blocks import at_most, block_length
from zoo.recurrent.engine.step import Step

# Of a block's recurrent sums. With twice that, temporaries of a batch of 32 pass the 32 MiB above
# which glibc maps every allocation afresh (docs/performance-bounds.md).
_BLOCK_BYTES = 3 * 2**19

# Of a block's elements in a linear recurrence: a and b as they lie in a core's cache.
_ELEMENT_BYTES = 2**21

# On a GPU, launching a step's kernels takes longer than running them. Where eight steps stand in an
# iteration, gradients take 0.5 to 0.8 of the time. A block of 64 steps takes 1.0 to 1.1 times as
# long as one of all steps, whose input projections need memory for all of them.
_GPU_UNROLL = 8
_GPU_BLOCK_BYTES = 2**26
_GPU_BLOCK_STEPS = 64


class Cut(NamedTuple):
    """How the fused engine runs a gated layer; see ``fused.Plan``.

    Attributes:
      length: steps per block.
      keep: what the backward pass keeps.
      hoist: whether the input projections of a block leave the forward loop.
      unroll: steps per iteration of the inner loops.
    """

    length: Any
    keep: str
    hoist: bool
    unroll: int


def gated(step: Step, xs: jax.Array, checkpoint_every: int | None, unroll: int) -> Cut:
    """How the fused engine runs a gated layer on the default platform.

    Args:
      step: what is done at every step.
      xs: inputs (T, *batch, D), T > 1.
      checkpoint_every: most steps between the carries that are kept, or None.
      unroll: the least steps per iteration of the loops.
    """
    if platform() == "gpu":
        keep, length = _on_gpu(step, xs)
        hoist = True
        unroll = unroll if is_symbolic_dim(xs.shape[0]) else max(unroll, _GPU_UNROLL)
    else:
        keep, length = _on_cpu(step, xs)
        hoist = _hoists(xs, step.cell)
    if checkpoint_every is not None:
        # A longer block costs more than the carries that it saves, below 30,000 steps.
        keep, length = "blocks", at_most(length, checkpoint_every)
    return Cut(length, keep, hoist, unroll)


def linear(start: Carry, steps: Any, whole: bool, checkpoint_every: int | None) -> tuple[str, Any]:
    """What a linear recurrence keeps for its backward pass, and the steps per block.

    Args:
      start: the first carry, arrays (*batch, width).
      steps: T.
      whole: whether the recurrence is run over all steps at once, as a tree or by a kernel.
      checkpoint_every: most steps between the carries that are kept, or None.
    """
    length, row = steps, sum(2 * x.size * x.dtype.itemsize for x in start)
    if not whole and (is_symbolic_dim(steps) or is_symbolic_dim(row)):
        length = block_length(steps, 64)
    elif not whole:
        length = block_length(steps, max(16, int(_ELEMENT_BYTES // max(row, 1))))
    if checkpoint_every is not None:
        return "blocks", at_most(length, checkpoint_every)
    return "carries", length


def _on_cpu(step: Step, xs: jax.Array) -> tuple[str, Any]:
    """What the backward pass keeps, and the steps per block.

    Keeping the products saves making them again, a fifth of the time where they are large and
    a tenth of an LSTM's in any case; beyond 64 MiB, memory is worth more
    (docs/performance-bounds.md).
    Where a step is small, so are its products, and writing them takes as long.
    """
    steps, batch, features = xs.shape[0], math.prod(xs.shape[1:-1]), step.cell.features
    if is_symbolic_dim(steps) or is_symbolic_dim(batch):
        return "carries", block_length(steps, 32)
    sums = _bytes_of_sums(step, batch)
    worth = features >= 256 or (batch * features >= 1024 and steps * sums <= 2**26)
    length = block_length(steps, max(8, _BLOCK_BYTES // max(sums, 1)))
    return "products" if worth else "carries", length


def _on_gpu(step: Step, xs: jax.Array) -> tuple[str, Any]:
    """The same: products are always kept, which took 0.6 to 1.7 times what ``nn.RNN`` keeps."""
    steps, batch = xs.shape[0], math.prod(xs.shape[1:-1])
    if is_symbolic_dim(steps) or is_symbolic_dim(batch):
        return "products", block_length(steps, _GPU_BLOCK_STEPS)
    fill = _GPU_BLOCK_BYTES // max(_bytes_of_sums(step, batch), 1)
    return "products", block_length(steps, max(_GPU_BLOCK_STEPS, fill))


def _bytes_of_sums(step: Step, batch: int) -> int:
    """Of all recurrent sums of a step."""
    kernels = step.cell.kernels
    widths = (kernels[name].width for group in step.cell.products for name in group)
    return sum(widths) * step.work_dtype.itemsize * batch


def _hoists(xs: jax.Array, cell: Cell) -> bool:
    """Whether inputs are projected by one product for all steps of a block, or step by step.

    A number that leaves the loop costs eight bytes, written and read. One that stays costs D
    multiply-adds on one core, in place of all cores, and, since every step reads the kernel again,
    4 * D / batch bytes from the core's cache. While it moves one of the eight bytes, a core makes
    about 16 multiply-adds, or reads eight bytes of its cache (docs/performance-bounds.md).
    """
    batch = math.prod(xs.shape[1:-1])
    if is_symbolic_dim(xs.shape[-1]) or is_symbolic_dim(batch):
        return True
    if cell.kernels[cell.inputs[0]].window:
        # What a window reads is several times as large as xs, and would be written for a block.
        return False
    return xs.shape[-1] * (1 / (8 * 16) + 1 / (8 * 2 * max(batch, 1))) >= 1
