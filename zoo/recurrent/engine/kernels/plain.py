"""The same time loops as plain scans, where a program is compiled for something else than a GPU."""

import jax
import jax.numpy as jnp

from zoo.recurrent.engine.kernels.gates import GATES, SAVED
from zoo.recurrent.engine.kernels.layout import HELD, RESET, Shape, interleave, separate

_SUMS = {"preferred_element_type": jnp.float32}


def forward(
    shape: Shape,
    u: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    code: jax.Array,
    start: jax.Array,
    fresh: jax.Array,
    fresh_sums: jax.Array,
    *,
    save: bool,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Takes all steps; arguments and results are those of ``mosaic_forward``."""
    cell, dtype = shape.cell, u.dtype
    fresh, fresh_sums = jnp.swapaxes(fresh, 1, 2), jnp.swapaxes(fresh_sums, 1, 2)

    def step(old, at):
        u, code = at
        reset, held = (_of_features(code == what, old[0]) for what in (RESET, HELD))
        entered = tuple(jnp.where(reset, a, b) for a, b in zip(fresh, old, strict=True))
        h = old[0].astype(dtype).reshape(-1, shape.heads, shape.size)
        sums = jnp.einsum("bnk,gnkj->gbnj", h, kernel, **_SUMS).reshape(fresh_sums.shape)
        sums = jnp.where(reset, fresh_sums, sums)
        inputs = jnp.moveaxis(separate(u, cell.read), -2, 0).astype(jnp.float32)
        inputs = jnp.pad(inputs, ((GATES - cell.read, 0), (0, 0), (0, 0))) + bias[:, None]
        added = tuple(a + b for a, b in zip(sums, inputs[: cell.recurrent], strict=True))
        new, kept = cell.forward((*added, *inputs[cell.recurrent :]), entered)
        new = tuple(jnp.where(held, a, b) for a, b in zip(old, new, strict=True))
        kept = interleave(jnp.stack(kept, axis=-2)).astype(dtype) if save else None
        return new, (new[0].astype(dtype), kept)

    first = tuple(x.T for x in start)
    last, (ys, saved) = jax.lax.scan(step, first, (u, code))
    return ys, jnp.stack([x.T for x in last]), saved


def backward(
    shape: Shape,
    saved: jax.Array,
    kernel: jax.Array,
    code: jax.Array,
    d_ys: jax.Array,
    d_last: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Takes all steps backwards; arguments and results are those of ``mosaic_backward``."""
    cell, dtype = shape.cell, saved.dtype

    def step(carried, at):
        d, d_fresh = carried
        saved, code, d_y = at
        reset, held = (_of_features(code == what, d_y) for what in (RESET, HELD))
        d = (d[0] + d_y.astype(jnp.float32), *d[1:])
        kept = jnp.moveaxis(separate(saved, SAVED), -2, 0).astype(jnp.float32)
        found, through = cell.backward(cell.factors(tuple(kept)), d)
        found = tuple(jnp.where(held, 0.0, x).astype(dtype) for x in found)
        told = jnp.stack(found[: cell.recurrent])
        told = told.reshape(*told.shape[:2], shape.heads, shape.size)
        d_h = jnp.einsum("gbnj,gnkj->bnk", told, kernel, **_SUMS).reshape(through[0].shape)
        entered = (d_h + through[0], *through[1:])
        d_fresh = tuple(a + jnp.where(reset, b, 0.0) for a, b in zip(d_fresh, entered, strict=True))
        d = tuple(
            jnp.where(reset, 0.0, jnp.where(held, a, b)) for a, b in zip(d, entered, strict=True)
        )
        return (d, d_fresh), interleave(jnp.stack(found, axis=-2))

    last = tuple(x.T for x in d_last)
    nothing = jax.tree.map(jnp.zeros_like, last)
    (d, d_fresh), d_sums = jax.lax.scan(step, (last, nothing), (saved, code, d_ys), reverse=True)
    return d_sums, jnp.stack([x.T for x in d]), jnp.stack([x.T for x in d_fresh])


def _of_features(said: jax.Array, like: jax.Array) -> jax.Array:
    """What codes (C, B) say of every feature (B, H)."""
    return jnp.repeat(said.T, like.shape[-1] // len(said), axis=1)
