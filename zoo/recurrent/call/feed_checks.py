"""Validation of a step whose outputs are its next inputs."""

from typing import Any

import jax
import numpy as np

from zoo.recurrent.call.checks import DTypeError, ShapeError


def steps(value: Any) -> int:
    """Requires a number of steps.

    Raises:
      TypeError: it is no int.
      ValueError: it is negative.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(
            f"steps: expected an int, got {value!r}. Likely cause: a number that jit has traced; "
            "how many steps there are decides the shape of ys. Cure: static_argnames."
        )
    count = int(value)
    if count < 0:
        raise ValueError(f"steps: expected 0 or more, got {count}. Likely cause: a difference.")
    return count


def pair(result: Any) -> tuple[Any, Any]:
    """Requires that a step returned (carry, y).

    Raises:
      TypeError: it returned something else.
    """
    if isinstance(result, tuple) and len(result) == 2:
        return result
    got = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
    raise TypeError(
        f"step: expected a function that returns (carry, y), got one that returns {got}. Likely "
        'cause: a layer that is called, or applied without method="step".'
    )


def fed_back(fed: Any, first: Any) -> None:
    """Requires that what ``feed`` makes of y can be the next x.

    Raises:
      TypeError: another structure or dtype than the first x.
      ValueError: another shape.
    """
    want, have = jax.tree.structure(first), jax.tree.structure(fed)
    if want != have:
        raise DTypeError(
            f"feed: expected the structure of first, {want}, got {have}. Likely cause: y holds "
            "more than the next input. Cure: feed=lambda y: ... that makes an x of it."
        )
    for got, x in zip(jax.tree.leaves(fed), jax.tree.leaves(first), strict=True):
        if got.shape != x.shape:
            raise ShapeError(
                f"feed: expected the shape of first, {x.shape}, got {got.shape}. Likely cause: an "
                "output of another width than the input. Cure: feed=lambda y: ... that makes an x "
                "of it, or a step with a readout."
            )
        if got.dtype != x.dtype:
            raise DTypeError(
                f"feed: expected the dtype of first, {x.dtype}, got {got.dtype}. Cure: "
                f"feed=lambda y: y.astype({str(x.dtype)!r}), or a first of the dtype of y."
            )
