"""What is said where a conversion is not exact."""

import warnings
from typing import Any


class ConversionError(ValueError):
    """Weights, a config or a carry that cannot be converted exactly.

    The message names the key, what was found there, what was expected, and the cure where there
    is one. Nothing has been loaded when it is raised.

    Example:
        >>> import numpy as np
        >>> from zoo.recurrent import convert
        >>> try:
        ...     convert.from_torch({"weight_ih_l0": np.zeros((9, 2), np.float32)})
        ... except convert.ConversionError as error:
        ...     print(error)
        torch state dict: key 'weight_hh_l0' is missing; found 'weight_ih_l0' (9, 2).
    """


def refuse(what: str, why: str, instead: str) -> ConversionError:
    """Returns the error for what has no exact mapping: what it is, why not, and what would be."""
    return ConversionError(f"{what} has no exact mapping: {why} {instead}".rstrip())


def warn_narrowed(dtype: Any, becomes: Any) -> None:
    """Warns that weights of `dtype` lose precision because JAX runs without 64-bit types."""
    warnings.warn(
        f"The weights are {dtype} and become {becomes}, because JAX runs without 64-bit types. "
        "Set jax.config.update('jax_enable_x64', True) first to keep them.",
        UserWarning,
        stacklevel=5,
    )


def warn_reversed(what: str) -> None:
    """Warns that a library returns its outputs in reversed order and that the layer does not."""
    warnings.warn(
        f"{what} returns its outputs in reversed order. The converted layer, with reverse=True, "
        "computes the same outputs and returns them in the order of the inputs.",
        UserWarning,
        stacklevel=4,
    )
