"""A product that XLA:CPU spreads over its cores where it would leave a plain one to one core."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# On CPU these are all the same for float32; an algorithm by name is not.
_PRECISIONS = (None, "default", "high", "highest", *jax.lax.Precision)


def spread_dot(
    a: jax.Array, kernel: jax.Array, axes: int = 1, precision: jax.lax.PrecisionLike = None
) -> jax.Array:
    """Contracts the last axes of ``a`` with the first ones of ``kernel``.

    On CPU it is a convolution without spatial axes. XLA:CPU makes a dot of that again, but one
    that Eigen runs, on all cores from a smaller size on than the library that runs plain ones.
    Elsewhere, and where kernels are batched (``vmap`` over parameters), it is a plain dot; so are
    its derivatives.

    Args:
      a: (..., *contracted).
      kernel: (*contracted, *columns), of the same dtype.
      axes: how many axes are contracted.
      precision: of ``jax.lax.dot_general``.

    Returns:
      (..., *columns), of the same dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> spread_dot(jnp.ones((5, 2, 3)), jnp.ones((2, 3, 4)), axes=2).shape
      (5, 4)
    """
    rows, columns = math.prod(kernel.shape[:axes]), kernel.shape[axes:]
    leading = a.shape[: a.ndim - axes]
    flat, matrix = a.reshape(*leading, rows), kernel.reshape(rows, math.prod(columns))
    return _spread_p.bind(flat, matrix, precision=precision).reshape(*leading, *columns)


def spreads(a: jax.Array, kernel: jax.Array, axes: int, precision: jax.lax.PrecisionLike) -> bool:
    """Whether ``spread_dot`` of the same arguments was measured to be faster on CPU.

    On two cores, in a loop, it was 1.1 to 1.7 times as fast for products of many vectors with at
    most 128 features, and for those on the way back to at most 192 (docs/performance.md).
    """
    named = precision not in _PRECISIONS or jax.config.jax_default_matmul_precision is not None
    if named or is_symbolic_dim(a.size) or not jax.typeof(a).sharding.mesh.empty:
        return False
    if a.dtype != jnp.float32 or kernel.dtype != jnp.float32:
        return False
    rows, columns = math.prod(kernel.shape[:axes]), math.prod(kernel.shape[axes:])
    vectors = a.size // max(rows, 1)
    if vectors >= 128 and rows <= 128:
        return rows * columns >= 2**13
    return 32 <= vectors < 1024 and rows >= 256 and columns <= 192


def _plain(a: jax.Array, kernel: jax.Array, *, precision: Any) -> jax.Array:
    return jax.lax.dot_general(a, kernel, (((a.ndim - 1,), (0,)), ((), ())), precision=precision)


def _convolution(a: jax.Array, kernel: jax.Array, *, precision: Any) -> jax.Array:
    out = jax.lax.conv_general_dilated(
        a.reshape(-1, a.shape[-1]), kernel, (), "VALID", dimension_numbers=("NC", "IO", "NC")
    )
    return out.reshape(*a.shape[:-1], kernel.shape[-1])


def _to_vectors(cotangent: Any, a: Any, kernel: jax.Array, *, precision: Any) -> jax.Array:
    contract = (((cotangent.ndim - 1,), (1,)), ((), ()))
    return jax.lax.dot_general(cotangent, kernel, contract, precision=precision)


def _to_kernel(cotangent: Any, a: jax.Array, kernel: Any, *, precision: Any) -> jax.Array:
    leading = tuple(range(a.ndim - 1))
    contract = ((leading, leading), ((), ()))
    return jax.lax.dot_general(a, cotangent, contract, precision=precision)


def _batched(args: Any, axes: Any, *, precision: Any) -> tuple[jax.Array, int]:
    (a, kernel), (a_axis, kernel_axis) = args, axes
    if kernel_axis is None:
        a = jnp.moveaxis(a, a_axis, 0)
        return _spread_p.bind(a, kernel, precision=precision), 0
    return jax.vmap(functools.partial(_plain, precision=precision), axes)(a, kernel), 0


_spread_p = Primitive("spread_dot")
_spread_p.def_impl(_plain)
_spread_p.def_abstract_eval(
    lambda a, kernel, *, precision: a.update(
        shape=(*a.shape[:-1], kernel.shape[-1]), weak_type=False
    )
)
ad.defbilinear(_spread_p, _to_vectors, _to_kernel)
batching.primitive_batchers[_spread_p] = _batched
mlir.register_lowering(_spread_p, mlir.lower_fun(_plain, multiple_results=False))
mlir.register_lowering(_spread_p, mlir.lower_fun(_convolution, multiple_results=False), "cpu")
