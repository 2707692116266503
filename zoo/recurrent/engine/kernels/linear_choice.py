"""Whether a call of a linear layer can be run by a kernel, and which condition fails."""

import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax.export import is_symbolic_dim

from zoo.recurrent.cell import Carry
from zoo.recurrent.engine.kernels import target
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


def _obstacles(step: Step, start: Carry, xs: Any) -> Iterator[str]:
    yield from target.obstacles()
    if step.work_dtype != jnp.float32:
        yield f"the kernel computes in float32, and this layer in {step.work_dtype.name}"
    yield from _of_shapes(xs.shape, max(step.cell.widths))
    yield from target.on_a_mesh(xs, *start)


def _of_shapes(shape: tuple[Any, ...], width: int) -> Iterator[str]:
    if any(map(is_symbolic_dim, shape)):
        yield f"the shape of xs is symbolic: {shape}"
        return
    steps, batch = shape[0], math.prod(shape[1:-1])
    if steps < 2:
        yield "there is one step, for which no loop is needed"
    if batch < 1 or shape[-1] < 1:
        yield f"xs are empty: {shape}"
    if steps * batch * width >= 2**31:
        yield "there would be arrays of more than 2**31 numbers, which was not tried"
