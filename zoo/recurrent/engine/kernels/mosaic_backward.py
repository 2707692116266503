"""All steps of a gated recurrence backwards inside one kernel, for Hopper."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from zoo.recurrent.engine.kernels import tiles
from zoo.recurrent.engine.kernels.back_products import products
from zoo.recurrent.engine.kernels.gates import GATES, SAVED
from zoo.recurrent.engine.kernels.layout import BLOCK, HELD, RESET, Shape
from zoo.recurrent.engine.kernels.tiles import plgpu


def backward(
    shape: Shape,
    saved: jax.Array,
    kernel: jax.Array,
    code: jax.Array,
    d_ys: jax.Array,
    d_last: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Takes all steps backwards.

    Args:
      shape: see ``layout.Shape``.
      saved: see ``forward``.
      kernel: see ``forward``.
      code: see ``forward``.
      d_ys: cotangent of h after every step (T, B, H), dtype of ``saved``.
      d_last: cotangent of the last state, float32 (states, H, B).

    Returns:
      The cotangents of all sums (T, B, GATES * H), interleaved, of the first state and of the
      carry of a reset, float32 (states, H, B).
    """
    cell, groups, blocks = shape.cell, shape.groups, shape.blocks
    steps, batch, features = d_ys.shape
    dtype, rows = saved.dtype, shape.rows(batch)
    way = products(shape)
    scratch = {"back": way.scratch(shape, rows)}
    slots = tiles.ahead(dtype, steps, scratch, groups * rows * (SAVED + 1) * BLOCK)
    scratch["ahead"] = (
        tiles.buffer(dtype, groups, slots, rows, SAVED * BLOCK),
        tiles.buffer(dtype, groups, slots, rows, BLOCK),
        plgpu.Barrier(num_arrivals=2, num_barriers=groups * slots),
    )

    # [head, input block, output block, input, gate and output]
    weights = kernel.reshape(cell.recurrent, shape.heads, blocks, BLOCK, blocks, BLOCK)
    weights = weights.transpose(1, 2, 4, 3, 0, 5).reshape(shape.heads, blocks, blocks, BLOCK, -1)

    def body(saved, weights, code, d_ys, d_last, d_sums, d_start, d_fresh, *boards, **scratch):
        saved_smem, y_smem, in_here = scratch["ahead"]
        back = way(shape, scratch["back"], boards)
        group = lax.axis_index("group")
        mine = pl.ds(back.block * BLOCK, BLOCK)
        tile = pl.ds(lax.axis_index("tile") * rows, rows)

        def read_ahead(t, slot):
            here = in_here.at[group * slots + slot]
            source = saved.at[t, tile, pl.ds(back.block * SAVED * BLOCK, SAVED * BLOCK)]
            plgpu.copy_gmem_to_smem(source, saved_smem.at[group, slot], here)
            plgpu.copy_gmem_to_smem(d_ys.at[t, tile, mine], y_smem.at[group, slot], here)

        def take(n):
            """What a step needs of the forward pass, and the cotangent of its h."""
            slot = lax.rem(n, slots)
            plgpu.barrier_wait(in_here.at[group * slots + slot])
            (d_y,) = tiles.load_transposed(y_smem.at[group, slot], 1)
            return cell.factors(tiles.load_transposed(saved_smem.at[group, slot], SAVED)), d_y

        for s in range(slots):
            read_ahead(steps - 1 - s, s)
        back.read(weights)

        def step(n, carried):
            d, d_replaced, code_now, (factors, d_y) = carried
            t = steps - 1 - n
            now = lax.rem(n, 2)
            d = (d[0] + d_y, *d[1:])
            found, through = cell.backward(factors, d)
            code_next = code_now
            reset, held = (), ()
            if shape.conditions:
                codes = lax.broadcast_in_dim(code_now, (BLOCK, rows), (1,))
                reset, held = codes == RESET, codes == HELD
                code_next = tiles.load_code(shape, code, jnp.maximum(t - 1, 0), tile)
                found = tuple(jnp.where(held, 0.0, x) for x in found)

            # The copy of the step before the last has read what is written over here.
            plgpu.wait_smem_to_gmem(1, wait_read_only=True)
            back.give(jnp.concatenate([x.astype(dtype) for x in found]), now)

            def meanwhile():
                place = pl.ds(back.block * GATES * BLOCK, GATES * BLOCK)
                tiles.copy_out(back.given(now), d_sums.at[t, tile, place])
                plgpu.commit_smem_to_gmem_group()

                # The last step, too, takes a step after it, which is read and not used.
                @pl.when(n + slots <= steps)
                def _():
                    read_ahead(jnp.maximum(t - slots, 0), lax.rem(n, slots))

                return take(n + 1)

            d_h, taken = back.take(now, meanwhile)
            entered = (d_h + through[0], *through[1:])
            if shape.conditions:
                nothing = tuple(jnp.zeros_like(x) for x in entered)
                made = tiles.choose(reset, entered, nothing)
                d_replaced = tuple(a + b for a, b in zip(d_replaced, made, strict=True))
                entered = tiles.choose(reset, nothing, tiles.choose(held, d, entered))
            return entered, d_replaced, code_next, taken

        d = tuple(tiles.load_tile(d_last.at[i, mine, tile]) for i in range(cell.states))
        code_last = tiles.load_code(shape, code, steps - 1, tile) if shape.conditions else ()
        d_replaced = tuple(plgpu.layout_cast(jnp.zeros_like(x), plgpu.Layout.WGMMA) for x in d)
        d, d_replaced, *_ = lax.fori_loop(0, steps, step, (d, d_replaced, code_last, take(0)))
        for i in range(cell.states):
            tiles.store_tile(d_start.at[i, mine, tile], d[i])
            tiles.store_tile(d_fresh.at[i, mine, tile], d_replaced[i])
        plgpu.wait_smem_to_gmem(0)

    state = jax.ShapeDtypeStruct((cell.states, features, batch), jnp.float32)
    out = (jax.ShapeDtypeStruct((steps, batch, GATES * features), dtype), state, state)
    out += way.board(shape, batch)
    run = tiles.call(shape, body, "gates_backward", out, scratch, batch // rows)
    return run(saved, weights, code, d_ys, d_last)[:3]
