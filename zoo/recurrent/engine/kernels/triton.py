"""Time loops inside one kernel, in Pallas' Triton backend.

A program holds one head and a few rows of the batch, and takes all their steps; the compiler places
the recurrent kernel and the state. Arguments and results are those of ``mosaic``.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from zoo.recurrent.engine.kernels.gates import GATES, SAVED

BLOCK = 64
RESET, HELD = 1, 2


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a kernel has to know before it sees an array.

    Attributes:
      cell: the gates, see ``gates``.
      heads: number of blocks of the recurrent kernel.
      size: features per head, 64 or 128.
      rows: batch elements per program, at least 16.
      conditions: whether there are resets or masks.
      warps: warps per program.
      interpret: whether to interpret the kernel where there is no GPU.
    """

    cell: Any
    heads: int
    size: int
    rows: int = 16
    conditions: bool = True
    warps: int = 4
    interpret: bool = False

    @property
    def groups(self) -> int:
        """Blocks of features per head."""
        return self.size // BLOCK

    def call(self, body: Any, name: str, out: Any, batch: int) -> Any:
        """The kernel of a body, which sees whole arrays."""
        from jax.experimental.pallas import triton

        return pl.pallas_call(
            body,
            out_shape=out,
            grid=(batch // self.rows, self.heads),
            name=name,
            interpret=self.interpret,
            compiler_params=triton.CompilerParams(num_warps=self.warps, num_stages=1),
        )

    def columns(self, head: Any, gates: int, gate: int) -> list[Any]:
        """Where a gate of a head lies among interleaved features, by blocks."""
        first = head * self.groups
        return [pl.ds(((first + k) * gates + gate) * BLOCK, BLOCK) for k in range(self.groups)]


def forward(plan, u, kernel, code, start, fresh, fresh_sums, *, save):
    """Takes all steps; see ``mosaic.forward``."""
    cell, groups, rows = plan.cell, plan.groups, plan.rows
    steps, batch, width = u.shape
    features, dtype = width // GATES, u.dtype

    def body(u, kernel, code, start, fresh, fresh_sums, ys, last, *saved):
        head = pl.program_id(1)
        tile = pl.ds(pl.program_id(0) * rows, rows)
        own = [pl.ds((head * groups + k) * BLOCK, BLOCK) for k in range(groups)]
        blocks = range(groups)

        def tiles(ref, i):
            return tuple(ref[i, own[k], tile].T for k in blocks)

        # [gate][input block][output block]
        weights = [
            [
                [kernel[g, head, pl.ds(k * BLOCK, BLOCK), pl.ds(j * BLOCK, BLOCK)] for j in blocks]
                for k in blocks
            ]
            for g in range(cell.recurrent)
        ]
        state = tuple(tiles(start, i) for i in range(cell.states))
        if plan.conditions:
            replaced = tuple(tiles(fresh, i) for i in range(cell.states))
            replaced_sums = [tiles(fresh_sums, g) for g in range(cell.recurrent)]

        def step(t, old):
            entered = old
            if plan.conditions:
                codes = code[t, tile][:, None]
                reset, held = codes == RESET, codes == HELD
                entered = tuple(
                    tuple(jnp.where(reset, a, b) for a, b in zip(x, y, strict=True))
                    for x, y in zip(replaced, old, strict=True)
                )
            h = [x.astype(dtype) for x in old[0]]
            new = [[] for _ in range(cell.states)]
            for j in blocks:
                sums = []
                for g in range(GATES):
                    at = plan.columns(head, GATES, g)[j]
                    x = u[t, tile, at].astype(jnp.float32)
                    if g < cell.recurrent:
                        made = sum(dot(h[k], weights[g][k][j]) for k in blocks)
                        if plan.conditions:
                            made = jnp.where(reset, replaced_sums[g][j], made)
                        x = x + made
                    sums.append(x)
                made, kept = cell.forward(tuple(sums), tuple(x[j] for x in entered))
                for i, x in enumerate(made):
                    new[i].append(jnp.where(held, old[i][j], x) if plan.conditions else x)
                for i, x in enumerate(kept if save else ()):
                    saved[0][t, tile, plan.columns(head, SAVED, i)[j]] = x.astype(dtype)
                ys[t, tile, own[j]] = new[0][j].astype(dtype)
            return tuple(tuple(x) for x in new)

        state = lax.fori_loop(0, steps, step, state)
        for i in range(cell.states):
            for k in blocks:
                last[i, own[k], tile] = state[i][k].T

    out = [
        jax.ShapeDtypeStruct((steps, batch, features), dtype),
        jax.ShapeDtypeStruct((cell.states, features, batch), jnp.float32),
    ]
    if save:
        out.append(jax.ShapeDtypeStruct((steps, batch, SAVED * features), dtype))
    run = plan.call(body, "gates_forward", out, batch)
    results = run(u, kernel, code, start, fresh, fresh_sums)
    return tuple(results) if save else (*results, None)


def backward(plan, saved, kernel, code, d_ys, d_last):
    """Takes all steps backwards; see ``mosaic.backward``."""
    cell, groups, rows = plan.cell, plan.groups, plan.rows
    steps, batch, features = d_ys.shape
    dtype = saved.dtype
    kernel = kernel.swapaxes(-1, -2)

    def body(saved, kernel, code, d_ys, d_last, d_sums, d_start, d_fresh):
        head = pl.program_id(1)
        tile = pl.ds(pl.program_id(0) * rows, rows)
        own = [pl.ds((head * groups + k) * BLOCK, BLOCK) for k in range(groups)]
        blocks = range(groups)
        # [gate][output block][input block]
        weights = [
            [
                [kernel[g, head, pl.ds(k * BLOCK, BLOCK), pl.ds(j * BLOCK, BLOCK)] for j in blocks]
                for k in blocks
            ]
            for g in range(cell.recurrent)
        ]

        def step(n, carried):
            d, d_replaced = carried
            t = steps - 1 - n
            if plan.conditions:
                codes = code[t, tile][:, None]
                reset, held = codes == RESET, codes == HELD
            d_h = [0.0 for _ in blocks]
            d = (tuple(d[0][k] + d_ys[t, tile, own[k]] for k in blocks), *d[1:])
            past = []
            for k in blocks:
                kept = tuple(
                    saved[t, tile, plan.columns(head, SAVED, i)[k]].astype(jnp.float32)
                    for i in range(SAVED)
                )
                found, through = cell.backward(cell.factors(kept), tuple(x[k] for x in d))
                past.append(through)
                for g, x in enumerate(found):
                    x = (jnp.where(held, 0.0, x) if plan.conditions else x).astype(dtype)
                    d_sums[t, tile, plan.columns(head, GATES, g)[k]] = x
                    if g < cell.recurrent:
                        for j in blocks:
                            d_h[j] = d_h[j] + dot(x, weights[g][k][j])
            entered = [
                tuple(past[k][i] + (d_h[k] if i == 0 else 0.0) for k in blocks)
                for i in range(cell.states)
            ]
            if plan.conditions:
                d_replaced = tuple(
                    tuple(a + jnp.where(reset, b, 0.0) for a, b in zip(x, y, strict=True))
                    for x, y in zip(d_replaced, entered, strict=True)
                )
                entered = [
                    tuple(
                        jnp.where(reset, 0.0, jnp.where(held, a, b))
                        for a, b in zip(x, y, strict=True)
                    )
                    for x, y in zip(d, entered, strict=True)
                ]
            return tuple(entered), d_replaced

        d = tuple(tuple(d_last[i, own[k], tile].T for k in blocks) for i in range(cell.states))
        d_replaced = jax.tree.map(jnp.zeros_like, d)
        d, d_replaced = lax.fori_loop(0, steps, step, (d, d_replaced))
        for i in range(cell.states):
            for k in blocks:
                d_start[i, own[k], tile] = d[i][k].T
                d_fresh[i, own[k], tile] = d_replaced[i][k].T

    state = jax.ShapeDtypeStruct((cell.states, features, batch), jnp.float32)
    out = [jax.ShapeDtypeStruct((steps, batch, GATES * features), dtype), state, state]
    return tuple(plan.call(body, "gates_backward", out, batch)(saved, kernel, code, d_ys, d_last))


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """A product with float32 sums."""
    return jnp.dot(a, b, preferred_element_type=jnp.float32)
