"""A gated layer's recurrence by heads, as a function with a gradient; the kernel is a choice."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.engine.kernels.gates import GATES

BLOCK = 64
"""Features whose gates lie together in interleaved arrays."""

FLOAT32_SUMS = {"preferred_element_type": jnp.float32}

State = tuple[jax.Array, ...]


def interleave(x: jax.Array) -> jax.Array:
    """Lays the gates of every 64 features together: (..., gates, H) as (..., gates * H).

    An input kernel and a bias are interleaved so, and then what they make is so of itself.
    """
    *leading, gates, features = x.shape
    cut = x.reshape(*leading, gates, features // BLOCK, BLOCK)
    return jnp.moveaxis(cut, -3, -2).reshape(*leading, gates * features)


def separate(x: jax.Array, gates: int) -> jax.Array:
    """Undoes ``interleave``."""
    *leading, width = x.shape
    cut = x.reshape(*leading, width // (gates * BLOCK), gates, BLOCK)
    return jnp.moveaxis(cut, -2, -3).reshape(*leading, gates, width // gates)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recur(
    plan: Any,
    kernels: Any,
    u: jax.Array,
    kernel: jax.Array,
    start: State,
    fresh: State,
    code: jax.Array,
) -> tuple[jax.Array, State]:
    """Runs the recurrence over time.

    Args:
      plan: the ``Plan`` of the kernels.
      kernels: the module that has ``forward`` and ``backward``.
      u: input sums and biases (T, B, GATES * H), interleaved, in the cell's order.
      kernel: recurrent kernel (recurrent, heads, d, d), inputs before outputs.
      start: the first state, h first, arrays (B, H).
      fresh: the state of a reset.
      code: int32 (T, B): 1 where the state is replaced before the step, 2 where the step leaves
        no trace, else 0.

    Returns:
      h after every step (T, B, H), and the last state.
    """
    ys, last, _ = _run(plan, kernels, u, kernel, start, fresh, code, save=False)
    return ys, _rows_first(last)


def _run(plan, kernels, u, kernel, start, fresh, code, *, save):
    kernel = kernel.astype(u.dtype)
    h = fresh[0].astype(u.dtype).reshape(-1, plan.heads, plan.size)
    sums = jnp.einsum("bnk,gnkj->gnjb", h, kernel, **FLOAT32_SUMS)
    sums = sums.reshape(plan.cell.recurrent, -1, h.shape[0])
    tiles = _features_first(start), _features_first(fresh)
    return kernels.forward(plan, u, kernel, code, *tiles, sums, save=save)


def _forward(plan, kernels, u, kernel, start, fresh, code):
    ys, last, saved = _run(plan, kernels, u, kernel, start, fresh, code, save=True)
    return (ys, _rows_first(last)), (ys, saved, kernel, start, fresh, code)


def _backward(plan, kernels, residuals, cotangents):
    ys, saved, kernel, start, fresh, code = residuals
    d_ys, d_last = cotangents
    dtype = saved.dtype
    d_u, d_start, d_fresh = kernels.backward(
        plan, saved, kernel.astype(dtype), code, d_ys.astype(dtype), _features_first(d_last)
    )

    h = jnp.concatenate([start[0][None].astype(dtype), ys[:-1]])
    if plan.conditions:
        h = jnp.where((code == 1)[..., None], fresh[0].astype(dtype), h)
    h = h.reshape(*h.shape[:2], plan.heads, plan.size)
    d_sums = d_u.reshape(*h.shape[:3], GATES * plan.size)
    d_kernel = jnp.einsum("tbnk,tbnj->nkj", h, d_sums, **FLOAT32_SUMS)
    d_kernel = jnp.moveaxis(separate(d_kernel, GATES), -2, 0)[: plan.cell.recurrent]
    d_start, d_fresh = (
        tuple(d.astype(x.dtype) for d, x in zip(_rows_first(made), like, strict=True))
        for made, like in ((d_start, start), (d_fresh, fresh))
    )
    return d_u, d_kernel.astype(kernel.dtype), d_start, d_fresh, None


recur.defvjp(_forward, _backward)


def _features_first(state):
    return jnp.stack([x.astype(jnp.float32).T for x in state])


def _rows_first(tiles):
    return tuple(x.T for x in tiles)


def reference(
    plan: Any,
    u: jax.Array,
    kernel: jax.Array,
    start: State,
    fresh: State,
    code: jax.Array,
    *,
    unroll: int = 1,
) -> tuple[jax.Array, State]:
    """What ``recur`` computes, as a plain scan with products in the dtype of ``kernel``."""
    cell = plan.cell

    def step(state, at):
        u, code = at
        entered = state
        if plan.conditions:
            entered = _select(code == 1, fresh, state)
        h = entered[0].astype(kernel.dtype).reshape(-1, plan.heads, plan.size)
        sums = jnp.einsum("bnk,gnkj->gbnj", h, kernel, **FLOAT32_SUMS)
        sums = sums.reshape(cell.recurrent, *entered[0].shape)
        inputs = jnp.moveaxis(separate(u, GATES), -2, 0).astype(jnp.float32)
        recurrent = tuple(a + b for a, b in zip(sums, inputs[: cell.recurrent], strict=True))
        new, _ = cell.forward((*recurrent, *inputs[cell.recurrent :]), entered)
        if plan.conditions:
            new = _select(code == 2, state, new)
        return new, new[0].astype(u.dtype)

    state = tuple(x.astype(jnp.float32) for x in start)
    last, ys = jax.lax.scan(step, state, (u, code), unroll=unroll)
    return ys, last


def _select(condition, yes, no):
    return tuple(jnp.where(condition[:, None], a, b) for a, b in zip(yes, no, strict=True))
