"""Validation of the elements of a linear recurrence that somebody brings."""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.call import checks, dtypes
from zoo.recurrent.call.checks import DTypeError, ShapeError


def elements(
    a: Any, b: Any, initial: Any, resets: Any, axis: int
) -> tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None, int]:
    """Checks what ``linear_recurrence`` is given.

    Returns:
      The arrays, and the time axis counted from the front.

    Raises:
      TypeError: what should be an array is none, or has another dtype.
      ValueError: a shape does not fit, or there is no such axis.
    """
    b = _numbers("b", b)
    a = _numbers("a", a)
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise TypeError(f"axis: expected an int, got {axis!r}. Cure: the axis of time in b.")
    if b.ndim == 0 or not -b.ndim <= axis < b.ndim:
        raise ShapeError(
            f"axis={axis} does not fit b: expected an axis of time, got shape {b.shape}. Likely "
            "cause: elements of one step, or an axis of xs that b does not have."
        )
    axis %= b.ndim
    if a.shape != b.shape:
        raise ShapeError(
            f"a: expected the shape of b, {b.shape}, got {a.shape}. Likely cause: a factor that is "
            f"the same for all steps. Cure: jnp.broadcast_to(a, {b.shape})."
        )
    if initial is not None:
        initial = _numbers("initial", initial)
        one = b.shape[:axis] + b.shape[axis + 1 :]
        if initial.shape != one:
            raise ShapeError(
                f"initial: expected the shape of b without its time axis, {one}, got "
                f"{initial.shape}. Likely cause: another axis than {axis}, or a state without its "
                "batch axes."
            )
    if resets is not None:
        resets = checks.array("resets", resets, "a bool array")
        if resets.dtype != bool:
            raise DTypeError(
                f"resets: expected bool, got {resets.dtype}{list(resets.shape)}. Convert it with "
                "`!= 0`."
            )
        shapes = [b.shape] if axis == b.ndim - 1 else [b.shape, b.shape[:-1]]
        if resets.shape not in shapes:
            raise ShapeError(
                f"resets: expected shape {' or '.join(map(str, shapes))}, got {resets.shape}. "
                "Likely cause: another axis, or a missing batch axis."
            )
    return a, b, initial, resets, axis


def common_dtype(*arrays: jax.Array | None) -> Any:
    """The dtype that a recurrence of these returns."""
    return dtypes.promote(*(x.dtype for x in arrays if x is not None))


def _numbers(name: str, value: Any) -> jax.Array:
    value = checks.array(name, value, "an array of real or complex numbers")
    if not jnp.issubdtype(value.dtype, jnp.inexact) or value.dtype.itemsize < 2:
        raise DTypeError(
            f"{name}: expected real or complex numbers of floating point, got "
            f"{value.dtype}{list(value.shape)}. Cure: {name}.astype(jnp.float32)."
        )
    return value
