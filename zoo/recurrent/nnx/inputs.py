"""The inputs that a Linen layer is made known with."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import FlaxError


def require_linen(layer: Any) -> None:
    """Requires a layer of Linen.

    Raises:
      TypeError: it is something else.
    """
    if not isinstance(layer, nn.Module):
        raise TypeError(
            f"expected a layer of Flax Linen, got {layer!r}. Likely cause: a name that is "
            "registered for something else, or a class where an instance is meant."
        )


def sample(layer: nn.Module, inputs: Any) -> jax.Array:
    """Returns the smallest sequence that a layer takes, of one step.

    Args:
      layer: a Linen layer.
      inputs: D, or one step's input or its shape and dtype.

    Raises:
      TypeError: ``inputs`` is neither a number nor an array.
      ValueError: D is not positive.
    """
    axis = getattr(layer, "time_axis", 0)
    if hasattr(inputs, "shape") and hasattr(inputs, "dtype"):
        shape = list(inputs.shape)
        shape.insert(axis if axis >= 0 else axis + len(shape) + 1, 1)
        return jnp.zeros(shape, inputs.dtype)
    if isinstance(inputs, bool) or not isinstance(inputs, int):
        raise TypeError(
            f"in_features: expected D, the number of input features, got {inputs!r}. Likely cause: "
            "an array of inputs, or options in its place. Cure: xs.shape[-1]."
        )
    if inputs < 1:
        raise ValueError(f"in_features: expected at least 1 input feature, got {inputs}.")
    features = getattr(layer, "feature_axes", 1)
    ndim = max(axis + 1 + features if axis >= 0 else -axis, 1 + features)
    return jnp.zeros((1,) * (ndim - 1) + (inputs,), jnp.float32)


def fitting(layer: nn.Module, variables: Mapping[str, Any]) -> jax.Array:
    """Returns the smallest sequence that a layer takes with these variables.

    D is the size of some axis of some parameter: it is the first one that the layer takes.

    Raises:
      ValueError: the variables are not those of the layer.
      TypeError: they are not variables of Linen.
    """
    sizes = [size for x in jax.tree.leaves(variables) for size in jnp.shape(x)]
    keys = {name: jax.random.key(0) for name in ("params", "carry")}
    errors = []
    for size in dict.fromkeys([*filter(None, sizes), 1]):
        xs = sample(layer, size)
        try:
            jax.eval_shape(lambda v, xs: layer.apply(v, None, xs, rngs=keys), variables, xs)
        except (TypeError, ValueError, LookupError, FlaxError) as error:
            errors.append(error)
        else:
            return xs
    raise errors[0]
