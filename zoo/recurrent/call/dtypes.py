"""Dtypes of a layer: what is computed in what, whatever comes in."""

from typing import Any

import jax
import jax.numpy as jnp

DTypeLike = Any


def canonical(dtype: DTypeLike) -> jnp.dtype:
    """The dtype that JAX would really use: "float64" is float32 unless x64 is enabled."""
    return jax.dtypes.canonicalize_dtype(dtype)


def promote(*dtypes: DTypeLike) -> jnp.dtype:
    """The common dtype by the standard rules, also where implicit promotion is forbidden."""
    with jax.numpy_dtype_promotion("standard"):
        return canonical(jnp.result_type(*map(canonical, dtypes)))


def is_half(dtype: DTypeLike) -> bool:
    """Whether linear algebra (QR of an orthogonal initialiser) is missing for this dtype."""
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
