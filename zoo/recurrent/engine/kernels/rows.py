"""A recurrence over all rows of a batch, by the kernel or as a scan."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.engine.kernels import plain, target
from zoo.recurrent.engine.kernels.gates import GATES
from zoo.recurrent.engine.kernels.layout import RESET, Shape, separate
from zoo.recurrent.engine.kernels.mapped import mappable

State = tuple[jax.Array, ...]

_SUMS = {"preferred_element_type": jnp.float32}


def forward(
    shape: Shape,
    save: bool,
    u: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    code: jax.Array,
    start: State,
    fresh: State,
) -> tuple[jax.Array, State, jax.Array | None]:
    """Takes all steps.

    Args:
      shape: see ``Shape``.
      save: whether the backward pass is to follow.
      u: what inputs add (T, B, read * H), interleaved, in the cell's order.
      kernel: recurrent kernel (recurrent, heads, d, d), inputs before outputs, dtype of ``u``.
      bias: of all sums, float32 (GATES, H).
      code: int32 (T, B), see ``layout``.
      start: the first state, h first, float32 arrays (B, H).
      fresh: the state of a reset.

    Returns:
      h after every step (T, B, H), the last state, and what ``backward`` needs, or None.
    """
    run = functools.partial(_forward, save)
    return mappable(run, shape, (1, None, 2, 0, 0), (1, 0, 1))(
        u, (kernel, bias), code[:, None], start, fresh
    )


def backward(
    shape: Shape,
    saved: jax.Array,
    kernel: jax.Array,
    code: jax.Array,
    d_ys: jax.Array,
    d_last: State,
) -> tuple[jax.Array, State, State]:
    """Takes all steps backwards.

    Args:
      shape: see ``Shape``.
      saved: see ``forward``.
      kernel: see ``forward``.
      code: see ``forward``.
      d_ys: cotangent of h after every step (T, B, H), dtype of ``saved``.
      d_last: cotangent of the last state, float32 arrays (B, H).

    Returns:
      The cotangents of all sums (T, B, GATES * H), interleaved, of the first state and of the
      state of a reset.
    """
    run = mappable(_backward, shape, (1, None, 2, 1, 0), (1, 0, 0))
    return run(saved, (kernel,), code[:, None], d_ys, d_last)


def kernel_gradient(
    shape: Shape, ys: jax.Array, start: State, fresh: State, code: jax.Array, d_sums: jax.Array
) -> jax.Array:
    """The cotangent of the recurrent kernel, of all steps at once, in float32."""
    h = jnp.concatenate([start[0][None].astype(ys.dtype), ys[:-1]])
    if shape.conditions:
        h = jnp.where((code == RESET)[..., None], fresh[0].astype(ys.dtype)[None], h)
    h = h.reshape(*h.shape[:2], shape.heads, shape.size)
    wide = d_sums.reshape(*h.shape[:3], GATES * shape.size)
    made = jnp.einsum("tbnk,tbnj->nkj", h, wide, **_SUMS)
    return jnp.moveaxis(separate(made, GATES), -2, 0)[: shape.cell.recurrent]


def _forward(save, shape, u, weights, code, start, fresh):
    kernel, bias = weights
    batch = u.shape[1]
    u, code, (start, fresh) = _padded(shape, batch, u, code, (start, fresh))
    h = fresh[0].astype(u.dtype).reshape(-1, shape.heads, shape.size)
    sums = jnp.einsum("bnk,gnkj->gnjb", h, kernel, **_SUMS)
    sums = sums.reshape(shape.cell.recurrent, -1, h.shape[0])
    tiles = _features_first(start), _features_first(fresh)

    def by_kernel(*arguments):
        from zoo.recurrent.engine.kernels import mosaic_forward

        return mosaic_forward.forward(shape, *arguments, save=save)

    def by_scan(*arguments):
        return plain.forward(shape, *arguments, save=save)

    ys, last, saved = target.by_kernel(
        by_kernel, by_scan, shape.interpret, u, kernel, bias, code, *tiles, sums
    )
    saved = None if saved is None else saved[:, :batch]
    return ys[:, :batch], _rows_first(last, batch), saved


def _backward(shape, saved, weights, code, d_ys, d_last):
    (kernel,) = weights
    batch = saved.shape[1]
    saved, code, d_ys, d_last = _padded(shape, batch, saved, code, d_ys, d_last)

    def by_kernel(*arguments):
        from zoo.recurrent.engine.kernels import mosaic_backward

        return mosaic_backward.backward(shape, *arguments)

    def by_scan(*arguments):
        return plain.backward(shape, *arguments)

    tiles = _features_first(d_last)
    d_sums, d_start, d_fresh = target.by_kernel(
        by_kernel, by_scan, shape.interpret, saved, kernel, code, d_ys, tiles
    )
    return d_sums[:, :batch], _rows_first(d_start, batch), _rows_first(d_fresh, batch)


def _padded(shape: Shape, batch: int, *trees: Any) -> Any:
    """Adds rows of zeros, which nobody sees, before features, or at the end of codes."""
    more = -batch % shape.rows(batch)

    def pad(x: jax.Array) -> jax.Array:
        axis = x.ndim - 1 if jnp.issubdtype(x.dtype, jnp.integer) else x.ndim - 2
        return jnp.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)])

    return jax.tree.map(pad, trees) if more else trees


def _features_first(state: State) -> jax.Array:
    return jnp.stack([x.T for x in state])


def _rows_first(tiles: jax.Array, batch: int) -> State:
    return tuple(x.T[:batch] for x in tiles)
