"""What vmap makes of a recurrence: more rows of the batch, or more heads."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.engine.kernels import obstacles
from zoo.recurrent.engine.kernels.gates import SAVED
from zoo.recurrent.engine.kernels.layout import Shape


def mappable(
    run: Callable[..., Any], shape: Shape, axes: Sequence[int | None], results: Sequence[int]
) -> Callable[..., Any]:
    """A run of which ``vmap`` makes one that is wider, so that it is one kernel still.

    What is mapped over are rows where all have the same parameters, and heads where every one has
    its own, as the members of an ensemble. Only what would be too large runs one after the other.

    Args:
      run: takes a shape and arrays whose last axis is that of features: inputs, parameters as a
        tuple (whose second axis is that of heads or features), codes (T, C, B), each of C for as
        many heads, and others.
      shape: see ``Shape``.
      axes: where every argument has its rows, None for parameters.
      results: the same of every result.
    """
    call = jax.custom_batching.custom_vmap(functools.partial(run, shape))

    @call.def_vmap
    def mapped(size: int, is_mapped: Sequence[Any], *arguments: Any) -> Any:
        spread = functools.partial(mapped_over, size)
        _, own_weights, own_code, *_ = is_mapped
        *_, steps, _, batch = arguments[2].shape
        if size * steps * batch * SAVED * shape.heads * shape.size >= obstacles.MOST:
            out = jax.lax.map(lambda own: call(*own), spread(arguments, tuple(is_mapped)))
        elif any(own_weights):
            inputs, weights, code, *others = arguments
            whole = spread((inputs, *others), (is_mapped[0], *is_mapped[3:]))
            inputs, *others = jax.tree.map(as_features, whole)
            weights = spread(weights, tuple(own_weights))
            weights = jax.tree.map(functools.partial(_joined, 1), weights)
            wide = dataclasses.replace(shape, heads=size * shape.heads)
            if own_code or code.shape[1] > 1:
                code = _joined(1, spread(code, own_code))
            out = mappable(run, wide, axes, results)(inputs, weights, code, *others)
            out = jax.tree.map(functools.partial(of_features, size), out)
        else:
            keep = jax.tree.map(lambda _: True, own_weights)
            whole = spread(arguments, (is_mapped[0], keep, *is_mapped[2:]))
            out = call(*map(_as_rows, axes, whole))
            out = tuple(map(functools.partial(_of_rows, size), results, out))
        return out, jax.tree.map(lambda _: True, out)

    return call


def mapped_over(size: int, tree: Any, is_mapped: Any) -> Any:
    """Arrays that all have the axis that is mapped over, repeated where they had none."""

    def spread(x: jax.Array, is_mapped: bool) -> jax.Array:
        return x if is_mapped else jnp.broadcast_to(x[None], (size, *x.shape))

    return jax.tree.map(spread, tree, is_mapped)


def as_features(x: jax.Array) -> jax.Array:
    """Makes features, the last axis, of what is mapped over, the first."""
    return jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1)


def of_features(size: int, x: jax.Array) -> jax.Array:
    """Undoes ``as_features``."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], size, -1), -2, 0)


def _as_rows(axis: int | None, tree: Any) -> Any:
    return tree if axis is None else jax.tree.map(functools.partial(_joined, axis), tree)


def _of_rows(size: int, axis: int, tree: Any) -> Any:
    def cut(x: jax.Array) -> jax.Array:
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        return jnp.moveaxis(x.reshape(*before, size, -1, *after), axis, 0)

    return jax.tree.map(cut, tree)


def _joined(axis: int, x: jax.Array) -> jax.Array:
    """One axis of what is mapped over and one of what is mapped."""
    before, after = x.shape[1 : axis + 1], x.shape[axis + 2 :]
    return jnp.moveaxis(x, 0, axis).reshape(*before, -1, *after)
