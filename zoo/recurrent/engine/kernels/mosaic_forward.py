"""All steps of a gated recurrence inside one kernel, for Hopper."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from zoo.recurrent.engine.kernels import exchange, tiles
from zoo.recurrent.engine.kernels.gates import GATES, SAVED
from zoo.recurrent.engine.kernels.layout import BLOCK, HELD, RESET, Shape
from zoo.recurrent.engine.kernels.tiles import plgpu


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
    """Takes all steps.

    Args:
      shape: see ``layout.Shape``.
      u: what inputs add (T, B, read * H), interleaved, float32 or bfloat16, the dtype of products.
      kernel: recurrent kernel (recurrent, heads, d, d), inputs before outputs, dtype of ``u``.
      bias: of all sums, float32 (GATES, H).
      code: int32 (T, C, B), see ``RESET`` and ``HELD``, each of C for as many heads; not read
        without ``shape.conditions``.
      start: float32 (states, H, B).
      fresh: float32 (states, H, B), the carry of a reset.
      fresh_sums: float32 (recurrent, H, B), recurrent sums of ``fresh``.
      save: whether the backward pass is to follow.

    Returns:
      h after every step (T, B, H), the last state (states, H, B), and what is saved of every step
      (T, B, SAVED * H), interleaved, or None.
    """
    cell, groups, blocks = shape.cell, shape.groups, shape.blocks
    steps, batch, width = u.shape
    features = width // cell.read
    dtype, rows = u.dtype, shape.rows(batch)
    scratch = {
        "sides": (
            tiles.buffer(dtype, groups, blocks, cell.recurrent * BLOCK, BLOCK),
            plgpu.Barrier(num_arrivals=blocks, num_barriers=groups),
        ),
        "told": exchange.scratch(shape, rows, BLOCK),
    }
    if save:
        scratch["kept"] = tiles.buffer(dtype, groups, 2, rows, SAVED * BLOCK)
    slots = tiles.ahead(dtype, steps, scratch, groups * rows * cell.read * BLOCK)
    scratch["ahead"] = (
        tiles.buffer(dtype, groups, slots, rows, cell.read * BLOCK),
        plgpu.Barrier(num_barriers=groups * slots),
    )

    # [head, output block, gate and output, input]: what one warpgroup multiplies by lies together.
    weights = kernel.reshape(cell.recurrent, shape.heads, shape.size, blocks, BLOCK)
    weights = weights.transpose(1, 3, 0, 4, 2).reshape(shape.heads, blocks, -1, shape.size)

    def body(u, weights, bias, code, start, fresh, fresh_sums, ys, last, *more, **scratch):
        saved, boards = more[:save], more[save:]
        weights_smem, weights_here = scratch["sides"]
        u_smem, u_here = scratch["ahead"]
        told = exchange.Exchange(shape, scratch["told"], boards)
        group, head = lax.axis_index("group"), lax.axis_index("head")
        mine = pl.ds(told.block * BLOCK, BLOCK)
        tile = pl.ds(lax.axis_index("tile") * rows, rows)

        def read_ahead(t, slot):
            source = u.at[t, tile, pl.ds(told.block * cell.read * BLOCK, cell.read * BLOCK)]
            here = u_here.at[group * slots + slot]
            plgpu.copy_gmem_to_smem(source, u_smem.at[group, slot], here)

        for i, k in enumerate(told.order):
            side = weights.at[head, told.own, :, pl.ds(k * BLOCK, BLOCK)]
            plgpu.copy_gmem_to_smem(side, weights_smem.at[group, i], weights_here.at[group])
        for s in range(slots):
            read_ahead(s, s)

        def read(ref, count):
            return tuple(tiles.load_tile(ref.at[i, mine, tile]) for i in range(count))

        state = read(start, cell.states)
        biases = [tiles.load_column(bias.at[i, mine], rows) for i in range(GATES)]
        replaced, replaced_sums = (), ()
        if shape.conditions:
            replaced, replaced_sums = read(fresh, cell.states), read(fresh_sums, cell.recurrent)
        told.give(state[0].astype(dtype), 0)
        plgpu.barrier_wait(weights_here.at[group])
        sides = tiles.operands(shape, weights_smem.at[group], blocks)

        def step(t, carried):
            old, code_now = carried
            slot, now = lax.rem(t, slots), lax.rem(t, 2)

            def product(acc):
                for i, k in enumerate(told.order):
                    if i == 1:
                        told.wait(now)
                    plgpu.wgmma(acc, sides[i], told.part(now, k).T)
                # These are read while the tensor core works.
                plgpu.barrier_wait(u_here.at[group * slots + slot])
                inputs = tiles.load_transposed(u_smem.at[group, slot], cell.read)
                return acc[...], inputs

            sums, inputs = pl.run_scoped(
                product, plgpu.ACC((cell.recurrent * BLOCK, rows), jnp.float32)
            )
            sums = tiles.split(sums, cell.recurrent)
            entered, code_next = old, code_now
            reset, held = (), ()
            if shape.conditions:
                code_next = tiles.load_code(shape, code, jnp.minimum(t + 1, steps - 1), tile)
                codes = lax.broadcast_in_dim(code_now, (BLOCK, rows), (1,))
                reset, held = codes == RESET, codes == HELD
                entered = tiles.choose(reset, replaced, old)
                sums = tiles.choose(reset, replaced_sums, sums)
            added = tiles.add_last(biases, inputs)
            sums = tuple(a + b for a, b in zip(sums, added[: cell.recurrent], strict=True))
            new, kept = cell.forward((*sums, *added[cell.recurrent :]), entered)
            if shape.conditions:
                new = tiles.choose(held, old, new)

            # The copies of the step before the last have read what is written over here.
            plgpu.wait_smem_to_gmem(1, wait_read_only=True)
            if save:
                kept = jnp.concatenate([x.astype(dtype) for x in kept])
                scratch["kept"].at[group, now].T[...] = tiles.transposed(kept)
            then = lax.rem(t + 1, 2)
            told.give(new[0].astype(dtype), then, t + 1 < steps)
            tiles.copy_out(told.part(then, told.own), ys.at[t, tile, mine])
            if save:
                place = pl.ds(told.block * SAVED * BLOCK, SAVED * BLOCK)
                tiles.copy_out(scratch["kept"].at[group, now], saved[0].at[t, tile, place])
            plgpu.commit_smem_to_gmem_group()

            @pl.when(t + slots < steps)
            def _():
                read_ahead(t + slots, slot)

            return new, code_next

        code_first = tiles.load_code(shape, code, 0, tile) if shape.conditions else ()
        state, _ = lax.fori_loop(0, steps, step, (state, code_first))
        for i, x in enumerate(state):
            tiles.store_tile(last.at[i, mine, tile], x)
        plgpu.wait_smem_to_gmem(0)

    out = (
        jax.ShapeDtypeStruct((steps, batch, features), dtype),
        jax.ShapeDtypeStruct((cell.states, features, batch), jnp.float32),
    )
    if save:
        out += (jax.ShapeDtypeStruct((steps, batch, SAVED * features), dtype),)
    out += exchange.board(shape, batch, BLOCK)
    run = tiles.call(shape, body, "gates_forward", out, scratch, batch // rows)
    ys, last, *kept = run(u, weights, bias, code, start, fresh, fresh_sums)
    return ys, last, kept[0] if save else None
