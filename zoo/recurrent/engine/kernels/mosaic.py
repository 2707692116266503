"""Time loops inside one kernel, for Hopper, in Pallas' Mosaic GPU.

A program holds one head and a few rows of the batch, and takes all their steps. The recurrent
kernel stays in shared memory, the state in registers. Products are made transposed (features times
rows): a tensor core takes 64 rows of its left operand at the least, and features fill them, while
the batch can be cut as fine as 8 and so be spread over the card. A warpgroup owns 64 features of
every gate, so that the gates' arithmetic needs no exchange; the new h goes through shared memory,
from where the next product and the copy to global memory both read it.

Arrays of all gates are interleaved: the gates of a block of 64 features lie together, so that what
a warpgroup reads or writes of a step is one copy. See ``heads.interleave``.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from zoo.recurrent.engine.kernels.gates import GATES, SAVED

BLOCK = 64
"""Features per warpgroup: the height of a tensor core's left operand."""

RESET, HELD = 1, 2
"""What a row's code says of a step: the carry is replaced before it, or stays as it was."""

SHARED_BYTES = 227 * 1024 - 4096
"""Shared memory that a program may use on Hopper, less room for barriers and alignment."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a kernel has to know before it sees an array.

    Attributes:
      cell: the gates, see ``gates``.
      heads: number of blocks of the recurrent kernel.
      size: features per head, 64 or 128.
      rows: batch elements per program: 8, 16, 32 or 64.
      conditions: whether there are resets or masks.
      slots: steps read ahead, at most.
      registers: whether the recurrent kernel is multiplied from registers, so that a step does not
        read it from shared memory.
      lane: whether the kernel is lowered by threads instead of by warpgroups.
      barriers: whether the compiler adds barriers around every access of shared memory. The
        kernels need none: a thread never reads what threads write there, and between its reads of
        what a copy brought and the next copy to the same place it commits its writes.
      interpret: how to interpret the kernel where there is no GPU, or False.
    """

    cell: Any
    heads: int
    size: int
    rows: int = 16
    conditions: bool = True
    slots: int = 4
    registers: bool = False
    lane: bool = False
    barriers: bool = False
    interpret: Any = False

    @property
    def groups(self) -> int:
        """Warpgroups per program."""
        return self.size // BLOCK

    def call(self, body: Any, name: str, out: Any, scratch: Any, dtype: Any, batch: int) -> Any:
        """The kernel of a body."""
        semantics = plgpu.LoweringSemantics
        return plgpu.kernel(
            body,
            out_type=out,
            scratch_types=scratch,
            grid=(batch // self.rows, self.heads),
            grid_names=("tile", "head"),
            num_threads=self.groups,
            thread_name="group",
            interpret=self.interpret,
            kernel_name=name,
            compiler_params=plgpu.CompilerParams(
                # The error of approximate functions is that of bfloat16.
                approx_math=jnp.dtype(dtype).itemsize == 2,
                unsafe_no_auto_barriers=not self.barriers,
                lowering_semantics=semantics.Lane if self.lane else semantics.Warpgroup,
            ),
        )

    def buffer(self, dtype: Any, *shape: int) -> Any:
        """Shared memory that tensor cores can read; the last two dimensions are rows, features."""
        width = 128 // jnp.dtype(dtype).itemsize
        transforms = (plgpu.TilingTransform((8, width)), plgpu.SwizzleTransform(128))
        return plgpu.SMEM(shape, dtype, transforms=transforms)

    def side(self, ref: Any) -> Any:
        """The left operand of a product."""
        # The interpreter knows no operands in registers.
        if not self.registers or self.interpret:
            return ref
        return plgpu.load(ref, layout=plgpu.Layout.WGMMA)

    def ahead(self, dtype: Any, steps: int, resident: int, per_step: int) -> int:
        """Steps that can be read ahead, with so many elements resident and so many per step."""
        bytes_ = jnp.dtype(dtype).itemsize
        free = SHARED_BYTES - resident * bytes_
        slots = min(self.slots, steps, free // (per_step * bytes_))
        if slots < 1:
            raise ValueError(
                f"heads of {self.size} features in {jnp.dtype(dtype).name}: the recurrent kernel "
                f"and {self.rows} rows do not fit in shared memory. Cure: fewer rows, or bfloat16."
            )
        return slots


def forward(
    plan: Plan,
    u: jax.Array,
    kernel: jax.Array,
    code: jax.Array,
    start: jax.Array,
    fresh: jax.Array,
    fresh_sums: jax.Array,
    *,
    save: bool,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Takes all steps.

    Args:
      plan: see ``Plan``.
      u: input sums (T, B, GATES * H), interleaved, float32 or bfloat16, the dtype of products.
      kernel: recurrent kernel (recurrent, heads, d, d), inputs before outputs, dtype of ``u``.
      code: int32 (T, B), see ``RESET`` and ``HELD``; not read without ``plan.conditions``.
      start: float32 (states, H, B).
      fresh: float32 (states, H, B), the carry of a reset.
      fresh_sums: float32 (recurrent, H, B), recurrent sums of ``fresh``.
      save: whether the backward pass is to follow.

    Returns:
      h after every step (T, B, H), the last state (states, H, B), and what is saved of every step
      (T, B, SAVED * H), interleaved, or None.
    """
    cell, groups, rows = plan.cell, plan.groups, plan.rows
    steps, batch, width = u.shape
    features = width // GATES
    dtype = u.dtype
    resident = groups * groups * cell.recurrent * BLOCK * BLOCK + 2 * groups * rows * BLOCK
    resident += 2 * groups * rows * SAVED * BLOCK if save else 0
    slots = plan.ahead(dtype, steps, resident, groups * rows * GATES * BLOCK)

    # [head, output block, gate and output, input]: what one warpgroup multiplies by lies together.
    weights = kernel.reshape(cell.recurrent, plan.heads, plan.size, groups, BLOCK)
    weights = weights.transpose(1, 3, 0, 4, 2).reshape(plan.heads, groups, -1, plan.size)

    def body(u, weights, code, start, fresh, fresh_sums, ys, last, *rest):
        saved, *scratch = rest if save else (None, *rest)
        weights_smem, h_smem, u_smem, weights_here, u_here, h_here, *saved_smem = scratch
        group, head = lax.axis_index("group"), lax.axis_index("head")
        block = head * groups + group
        mine = pl.ds(block * BLOCK, BLOCK)
        tile = pl.ds(lax.axis_index("tile") * rows, rows)

        def read_ahead(t, slot):
            source = u.at[t, tile, pl.ds(block * GATES * BLOCK, GATES * BLOCK)]
            here = u_here.at[group * slots + slot]
            plgpu.copy_gmem_to_smem(source, u_smem.at[group, slot], here)

        def tell(t, h):
            """Gives h to the product of step t."""
            h_smem.at[lax.rem(t, 2), group].T[...] = transposed(h.astype(dtype))
            plgpu.commit_smem()
            if groups > 1:
                plgpu.barrier_arrive(h_here)
                plgpu.barrier_wait(h_here)

        for k in range(groups):
            side = weights.at[head, group, :, pl.ds(k * BLOCK, BLOCK)]
            plgpu.copy_gmem_to_smem(side, weights_smem.at[group, k], weights_here.at[group])
        for s in range(slots):
            read_ahead(s, s)

        def tiles(ref, count):
            return tuple(load_tile(ref.at[i, mine, tile]) for i in range(count))

        state = tiles(start, cell.states)
        if plan.conditions:
            replaced, replaced_sums = tiles(fresh, cell.states), tiles(fresh_sums, cell.recurrent)
        tell(0, state[0])
        plgpu.barrier_wait(weights_here.at[group])
        sides = [plan.side(weights_smem.at[group, k]) for k in range(groups)]

        def step(t, carried):
            old, code_now = carried
            slot, now = lax.rem(t, slots), lax.rem(t, 2)

            def product(acc):
                for k in range(groups):
                    plgpu.wgmma(acc, sides[k], h_smem.at[now, k].T)
                # These are read while the tensor core works.
                plgpu.barrier_wait(u_here.at[group * slots + slot])
                inputs = load_transposed(u_smem.at[group, slot], GATES)
                return acc[...], inputs

            sums, inputs = pl.run_scoped(
                product, plgpu.ACC((cell.recurrent * BLOCK, rows), jnp.float32)
            )
            sums = split(sums, cell.recurrent)
            entered, code_next = old, code_now
            if plan.conditions:
                code_next = load_code(code, jnp.minimum(t + 1, steps - 1), tile)
                codes = lax.broadcast_in_dim(code_now, (BLOCK, rows), (1,))
                reset, held = codes == RESET, codes == HELD
                entered = choose(reset, replaced, old)
                sums = choose(reset, replaced_sums, sums)
            sums = tuple(a + b for a, b in zip(sums, inputs[: cell.recurrent], strict=True))
            new, kept = cell.forward((*sums, *inputs[cell.recurrent :]), entered)
            if plan.conditions:
                new = choose(held, old, new)

            # The copies of the step before the last have read what is written over here.
            plgpu.wait_smem_to_gmem(1, wait_read_only=True)
            if save:
                kept = jnp.concatenate([x.astype(dtype) for x in kept])
                saved_smem[0].at[group, now].T[...] = transposed(kept)
            tell(t + 1, new[0])
            copy_out(h_smem.at[lax.rem(t + 1, 2), group], ys.at[t, tile, mine])
            if save:
                place = pl.ds(block * SAVED * BLOCK, SAVED * BLOCK)
                copy_out(saved_smem[0].at[group, now], saved.at[t, tile, place])
            plgpu.commit_smem_to_gmem_group()

            @pl.when(t + slots < steps)
            def _():
                read_ahead(t + slots, slot)

            return new, code_next

        code_first = load_code(code, 0, tile) if plan.conditions else ()
        state, _ = lax.fori_loop(0, steps, step, (state, code_first))
        for i, x in enumerate(state):
            last.at[i, mine, tile][...] = x
        plgpu.wait_smem_to_gmem(0)

    out = (
        jax.ShapeDtypeStruct((steps, batch, features), dtype),
        jax.ShapeDtypeStruct((cell.states, features, batch), jnp.float32),
    )
    scratch = (
        plan.buffer(dtype, groups, groups, cell.recurrent * BLOCK, BLOCK),
        plan.buffer(dtype, 2, groups, rows, BLOCK),
        plan.buffer(dtype, groups, slots, rows, GATES * BLOCK),
        plgpu.Barrier(num_arrivals=groups, num_barriers=groups),
        plgpu.Barrier(num_barriers=groups * slots),
        plgpu.Barrier(num_arrivals=groups),
    )
    if save:
        out += (jax.ShapeDtypeStruct((steps, batch, SAVED * features), dtype),)
        scratch += (plan.buffer(dtype, groups, 2, rows, SAVED * BLOCK),)
    run = plan.call(body, "gates_forward", out, scratch, dtype, batch)
    results = run(u, weights, code, start, fresh, fresh_sums)
    return results if save else (*results, None)


def backward(
    plan: Plan,
    saved: jax.Array,
    kernel: jax.Array,
    code: jax.Array,
    d_ys: jax.Array,
    d_last: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Takes all steps backwards.

    Args:
      plan: see ``Plan``.
      saved: see ``forward``.
      kernel: see ``forward``.
      code: see ``forward``.
      d_ys: cotangent of h after every step (T, B, H), dtype of ``saved``.
      d_last: cotangent of the last state, float32 (states, H, B).

    Returns:
      The cotangents of all sums (T, B, GATES * H), interleaved, of the first state and of the
      carry of a reset, float32 (states, H, B).
    """
    cell, groups, rows = plan.cell, plan.groups, plan.rows
    steps, batch, features = d_ys.shape
    dtype = saved.dtype
    resident = groups * groups * cell.recurrent * BLOCK * BLOCK
    resident += 2 * groups * rows * GATES * BLOCK
    slots = plan.ahead(dtype, steps, resident, groups * rows * (SAVED + 1) * BLOCK)

    # [head, input block, output block, input, gate and output]
    weights = kernel.reshape(cell.recurrent, plan.heads, groups, BLOCK, groups, BLOCK)
    weights = weights.transpose(1, 2, 4, 3, 0, 5).reshape(plan.heads, groups, groups, BLOCK, -1)

    def body(saved, weights, code, d_ys, d_last, d_sums, d_start, d_fresh, *scratch):
        weights_smem, d_smem, saved_smem, y_smem, weights_here, in_here, d_here = scratch
        group, head = lax.axis_index("group"), lax.axis_index("head")
        block = head * groups + group
        mine = pl.ds(block * BLOCK, BLOCK)
        tile = pl.ds(lax.axis_index("tile") * rows, rows)

        def read_ahead(t, slot):
            here = in_here.at[group * slots + slot]
            source = saved.at[t, tile, pl.ds(block * SAVED * BLOCK, SAVED * BLOCK)]
            plgpu.copy_gmem_to_smem(source, saved_smem.at[group, slot], here)
            plgpu.copy_gmem_to_smem(d_ys.at[t, tile, mine], y_smem.at[group, slot], here)

        def take(n):
            """What a step needs of the forward pass, and the cotangent of its h."""
            slot = lax.rem(n, slots)
            plgpu.barrier_wait(in_here.at[group * slots + slot])
            (d_y,) = load_transposed(y_smem.at[group, slot], 1)
            return cell.factors(load_transposed(saved_smem.at[group, slot], SAVED)), d_y

        for k in range(groups):
            side = weights.at[head, group, k]
            plgpu.copy_gmem_to_smem(side, weights_smem.at[group, k], weights_here.at[group])
        for s in range(slots):
            read_ahead(steps - 1 - s, s)
        plgpu.barrier_wait(weights_here.at[group])
        sides = [plan.side(weights_smem.at[group, k]) for k in range(groups)]

        def step(n, carried):
            d, d_replaced, code_now, (factors, d_y) = carried
            t = steps - 1 - n
            now = lax.rem(n, 2)
            d = (d[0] + d_y, *d[1:])
            found, through = cell.backward(factors, d)
            code_next = code_now
            if plan.conditions:
                codes = lax.broadcast_in_dim(code_now, (BLOCK, rows), (1,))
                reset, held = codes == RESET, codes == HELD
                code_next = load_code(code, jnp.maximum(t - 1, 0), tile)
                found = tuple(jnp.where(held, 0.0, x) for x in found)

            # The copy of the step before the last has read what is written over here.
            plgpu.wait_smem_to_gmem(1, wait_read_only=True)
            found = jnp.concatenate([x.astype(dtype) for x in found])
            d_smem.at[now, group].T[...] = transposed(found)
            plgpu.commit_smem()
            if groups > 1:
                plgpu.barrier_arrive(d_here)
                plgpu.barrier_wait(d_here)

            def product(acc):
                for k in range(groups):
                    told = d_smem.at[now, k, :, pl.ds(0, cell.recurrent * BLOCK)]
                    plgpu.wgmma(acc, sides[k], told.T)
                # All this is done while the tensor core works.
                place = pl.ds(block * GATES * BLOCK, GATES * BLOCK)
                copy_out(d_smem.at[now, group], d_sums.at[t, tile, place])
                plgpu.commit_smem_to_gmem_group()

                # The last step, too, takes a step after it, which is read and not used.
                @pl.when(n + slots <= steps)
                def _():
                    read_ahead(jnp.maximum(t - slots, 0), lax.rem(n, slots))

                taken = take(n + 1)
                return acc[...], taken

            d_h, taken = pl.run_scoped(product, plgpu.ACC((BLOCK, rows), jnp.float32))
            entered = (d_h + through[0], *through[1:])
            if plan.conditions:
                nothing = tuple(jnp.zeros_like(x) for x in entered)
                made = choose(reset, entered, nothing)
                d_replaced = tuple(a + b for a, b in zip(d_replaced, made, strict=True))
                entered = choose(reset, nothing, choose(held, d, entered))
            return entered, d_replaced, code_next, taken

        d = tuple(load_tile(d_last.at[i, mine, tile]) for i in range(cell.states))
        code_last = load_code(code, steps - 1, tile) if plan.conditions else ()
        d_replaced = tuple(plgpu.layout_cast(jnp.zeros_like(x), plgpu.Layout.WGMMA) for x in d)
        d, d_replaced, *_ = lax.fori_loop(0, steps, step, (d, d_replaced, code_last, take(0)))
        for i in range(cell.states):
            d_start.at[i, mine, tile][...] = d[i]
            d_fresh.at[i, mine, tile][...] = d_replaced[i]
        plgpu.wait_smem_to_gmem(0)

    state = jax.ShapeDtypeStruct((cell.states, features, batch), jnp.float32)
    out = (jax.ShapeDtypeStruct((steps, batch, GATES * features), dtype), state, state)
    scratch = (
        plan.buffer(dtype, groups, groups, BLOCK, cell.recurrent * BLOCK),
        plan.buffer(dtype, 2, groups, rows, GATES * BLOCK),
        plan.buffer(dtype, groups, slots, rows, SAVED * BLOCK),
        plan.buffer(dtype, groups, slots, rows, BLOCK),
        plgpu.Barrier(num_arrivals=groups, num_barriers=groups),
        plgpu.Barrier(num_arrivals=2, num_barriers=groups * slots),
        plgpu.Barrier(num_arrivals=groups),
    )
    run = plan.call(body, "gates_backward", out, scratch, dtype, batch)
    return run(saved, weights, code, d_ys, d_last)


def load_tile(ref: Any) -> jax.Array:
    """Reads (features, rows) from global memory, as a tensor core's result lies in registers."""
    return plgpu.load(ref, layout=plgpu.Layout.WGMMA, optimized=False)


def load_transposed(ref: Any, count: int) -> tuple[jax.Array, ...]:
    """Reads (rows, features) from shared memory as so many float32 (features, rows)."""
    x = plgpu.load(ref.T, layout=plgpu.Layout.WGMMA_TRANSPOSED)
    return split(plgpu.layout_cast(x, plgpu.Layout.WGMMA).astype(jnp.float32), count)


def load_code(code: Any, t: Any, tile: Any) -> jax.Array:
    """Reads the codes of a step's rows."""
    return plgpu.load(code.at[t, tile], layout=plgpu.Layout.WGMMA.reduce(0), optimized=False)


def transposed(x: jax.Array) -> jax.Array:
    """Lays a tile out as it is to be written into (rows, features)."""
    return plgpu.layout_cast(x, plgpu.Layout.WGMMA_TRANSPOSED)


def split(x: jax.Array, count: int) -> tuple[jax.Array, ...]:
    """Cuts features into blocks."""
    return tuple(x[i * BLOCK : (i + 1) * BLOCK] for i in range(count))


def choose(condition: jax.Array, yes: Any, no: Any) -> Any:
    """Selects between two tuples of arrays."""
    return tuple(jnp.where(condition, a, b) for a, b in zip(yes, no, strict=True))


def copy_out(source: Any, target: Any) -> None:
    """Copies to global memory; all copies of a step are committed as one group."""
    plgpu.copy_smem_to_gmem(source, target, commit_group=False)
