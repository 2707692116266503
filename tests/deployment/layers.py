"""Layers and variables for the tests of deployment; making them compiles nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import registry
from tests.recurrent.layers import some
from zoo.recurrent import RecurrentLayer

D, H = 3, 8


def gru(**options: Any) -> dict[str, Any]:
    return {"name": "scan_gru", "features": H, **options}


def lstm(**options: Any) -> dict[str, Any]:
    return {"name": "scan_lstm", "features": H, **options}


def both(layer: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"name": "bidirectional", "layer": layer, **options}


def stack(layer: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"name": "stack", "num_layers": 3, "layer": layer, **options}


def build(config: Any) -> RecurrentLayer:
    """Builds a layer of a config, or of a function that returns a layer."""
    return config() if callable(config) else registry.build(config)


def declared(config: Any, shape: tuple[int, ...] = (2, 2, D)) -> Any:
    """Shapes and dtypes of a layer's variables."""
    xs = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(build(config).init, jax.random.key(0), None, xs)


def drawn(config: Any) -> Any:
    """Variables with nothing zero in them, the same in every process.

    Wide kernels are small, or their layers would be chaotic: another order of sums would do.
    """
    rng = np.random.default_rng(3)
    leaves, structure = jax.tree.flatten(declared(config))
    scales = [min(0.4, x.shape[0] ** -0.5) if x.ndim > 1 else 0.4 for x in leaves]
    arrays = [
        jnp.asarray(scale * rng.standard_normal(x.shape), x.dtype)
        for scale, x in zip(scales, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, arrays)


XS = some((5, 4, D))
