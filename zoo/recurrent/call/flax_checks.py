"""Validation of what Flax hands to a module besides its arguments: variables, keys, flags."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.recurrent import unstable
from zoo.recurrent.call.checks import DTypeError


def variables(given: Any) -> None:
    """Requires what ``layer.init`` returns: a mapping of mappings.

    Raises:
      TypeError: it is something else.
    """
    if not isinstance(given, Mapping):
        raise DTypeError(
            "variables: expected a mapping such as {'params': ...}, what layer.init returns, got "
            f"{type(given).__name__}. Likely cause: another argument in its place."
        )
    for name, tree in given.items():
        if not isinstance(tree, Mapping):
            raise DTypeError(
                f"variables[{name!r}]: expected a mapping from names to arrays, got "
                f"{type(tree).__name__}. Likely cause: variables that were read or made by hand, "
                'or variables["params"] where variables is meant. Give what layer.init returns.'
            )


def keys(rngs: Any, what: str = "rngs") -> None:
    """Requires a key, or a mapping from names to keys; None is for nothing random.

    Raises:
      TypeError: one of them is no key.
    """
    for where, key in (
        ((f"{what}[{name!r}]", key) for name, key in rngs.items())
        if isinstance(rngs, Mapping)
        else ((what, rngs),)
    ):
        if key is None and where == what:
            continue
        if isinstance(key, jax.Array | np.ndarray):
            if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
                if key.ndim == 0:
                    continue
            elif key.dtype == np.uint32 and key.ndim == 1:
                continue
            got = f"{key.dtype}{list(key.shape)}"
        else:
            plain = key is None or isinstance(key, int | float | str)
            got = repr(key) if plain else type(key).__name__
        raise DTypeError(
            f"{where}: expected a key, got {got}. Likely cause: the number of a seed, or several "
            "keys at once. Cure: jax.random.key(seed), or one of the keys."
        )


def deterministic(value: Any) -> bool:
    """Requires a bool that is known while tracing, and returns it.

    Raises:
      TypeError: it is something else.
    """
    if unstable.is_traced(value) and isinstance(value, jax.Array):
        raise TypeError(
            "deterministic: expected a Python bool, got a traced array. Likely cause: nn.remat, "
            "nn.jit or jax.jit traces every argument. Cure: make it static; for a lifted layer, "
            "give it by position and build with nn.remat(Layer, static_argnums=(6,))."
        )
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"deterministic: expected a bool, got {value!r}.")
    return bool(value)
