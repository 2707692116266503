"""Whether a call of a linear layer can be run by a kernel, and which condition fails."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax.numpy as jnp

from zoo.recurrent.cell import Carry
from zoo.recurrent.engine.kernels import obstacles, target
from zoo.recurrent.engine.kernels.chunks import CHANNELS
from zoo.recurrent.engine.step import Step


def obstacle(step: Step, start: Carry, xs: Any) -> str | None:
    """Why a call with ``implementation="kernel"`` is run as with "auto".

    Args:
      step: what is done at every step, of a linear cell.
      start: the first carry, arrays (*batch, width), or their shapes and dtypes.
      xs: inputs (T, *batch, D), or their shape and dtype.

    Returns:
      The first condition that fails, in words, or None where the kernel is run.
    """
    return next(_obstacles(step, start, xs), None)


def takes_elements(added: Carry) -> bool:
    """Whether a bare recurrence, of which these arrays (T, ...) are added, is run by a kernel."""
    x = added[0]
    # Channels are filled up to whole programs.
    if target.target().devices > 1 or 2 * math.prod(x.shape[1:]) < CHANNELS:
        return False
    return next(_of_elements(x, added, x.dtype, x.shape[-1]), None) is None


def _obstacles(step: Step, start: Carry, xs: Any) -> Iterator[str]:
    yield from _of_elements(xs, (xs, *start), step.work_dtype, max(step.cell.widths))


def _of_elements(xs: Any, arrays: Iterable[Any], dtype: Any, width: int) -> Iterator[str]:
    yield from obstacles.of_machine()
    if dtype != jnp.float32:
        yield f"the kernel computes in float32, and this layer in {jnp.dtype(dtype).name}"
    yield from obstacles.of_shape(xs.shape, width)
    yield from obstacles.of_mesh(*arrays)
