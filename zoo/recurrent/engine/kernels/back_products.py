"""The product of a step backwards: from the cotangents of a head's sums to that of its h."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from zoo.recurrent.engine.kernels import exchange, tiles
from zoo.recurrent.engine.kernels.gates import GATES
from zoo.recurrent.engine.kernels.layout import BLOCK, Shape
from zoo.recurrent.engine.kernels.tiles import plgpu


def products(shape: Shape) -> Any:
    """The class that does it; both are made of the shape, and of its ``scratch`` and ``board``."""
    return Gathered if shape.cluster == 1 else Reduced


class Gathered:
    """Every warpgroup reads the cotangents of all sums, in the memory of its thread block."""

    @staticmethod
    def scratch(shape: Shape, rows: int) -> tuple[Any, ...]:
        """Shared memory and barriers."""
        width = shape.cell.recurrent * BLOCK
        return (
            tiles.buffer(shape.dtype, shape.groups, shape.blocks, BLOCK, width),
            plgpu.Barrier(num_arrivals=shape.blocks, num_barriers=shape.groups),
            exchange.scratch(shape, rows, GATES * BLOCK),
        )

    @staticmethod
    def board(shape: Shape, batch: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """What is put out beside results."""
        return ()

    def __init__(self, shape: Shape, refs: Any, boards: Any) -> None:
        self._shape = shape
        self._smem, self._here, told = refs
        self._told = exchange.Exchange(shape, told, boards)
        self.own, self.block = self._told.own, self._told.block

    def read(self, weights: Any) -> None:
        """Reads its part of the kernel [head, input block, output block, input, gate]."""
        group = lax.axis_index("group")
        for i, k in enumerate(self._told.order):
            side = weights.at[lax.axis_index("head"), self.own, k]
            plgpu.copy_gmem_to_smem(side, self._smem.at[group, i], self._here.at[group])
        plgpu.barrier_wait(self._here.at[group])
        self._sides = tiles.operands(self._shape, self._smem.at[group], self._shape.blocks)

    def give(self, x: jax.Array, now: Any) -> None:
        """Tells cotangents of sums (GATES * BLOCK, rows); ``now`` is 0 and 1 in turn."""
        self._told.give(x, now)

    def given(self, now: Any) -> Any:
        """Where they lie, (rows, GATES * BLOCK)."""
        return self._told.part(now, self.own)

    def take(self, now: Any, meanwhile: Callable[[], Any]) -> tuple[jax.Array, Any]:
        """The cotangent of h (BLOCK, rows); ``meanwhile`` runs while the tensor core works."""

        def product(acc: Any) -> Any:
            for side, k in zip(self._sides, self._told.order, strict=True):
                part = self._told.part(now, k)
                plgpu.wgmma(acc, side, part.at[:, pl.ds(0, self._smem.shape[-1])].T)
            more = meanwhile()
            return acc[...], more

        return pl.run_scoped(product, plgpu.ACC((BLOCK, self._told.rows), jnp.float32))


class Reduced:
    """Thread blocks multiply their own cotangents and send each other what is to be added up.

    That is 64 numbers of 32 bits per row, in the place of those of all gates in 16, and nobody
    waits before the product. With the other way, gradients took 1.1 times as long at 256 features.
    """

    @staticmethod
    def scratch(shape: Shape, rows: int) -> tuple[Any, ...]:
        """Shared memory and barriers."""
        gates, others = shape.cell.recurrent, shape.blocks - 1
        return (
            tiles.buffer(shape.dtype, gates, others * BLOCK, BLOCK),
            tiles.buffer(shape.dtype, gates, BLOCK, BLOCK),
            plgpu.Barrier(num_arrivals=gates * shape.blocks),
            tiles.buffer(shape.dtype, 2, rows, GATES * BLOCK),
            exchange.sums_scratch(shape, rows),
        )

    @staticmethod
    def board(shape: Shape, batch: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """What is put out beside results."""
        return exchange.sums_board(shape, batch)

    def __init__(self, shape: Shape, refs: Any, boards: Any) -> None:
        self._shape = shape
        self._others_smem, self._own_smem, self._here, self._d_smem, sums = refs
        self._sums = exchange.Sums(shape, sums, boards)
        self.own, self.block = self._sums.own, self._sums.block

    def read(self, weights: Any) -> None:
        """Reads its part of the kernel [head, input block, output block, input, gate]."""
        gates = self._shape.cell.recurrent
        own, *others = self._sums.order
        for g in range(gates):
            gate = pl.ds(g * BLOCK, BLOCK)
            for i, k in enumerate(others):
                side = weights.at[lax.axis_index("head"), k, self.own, :, gate]
                place = self._others_smem.at[g, pl.ds(i * BLOCK, BLOCK)]
                plgpu.copy_gmem_to_smem(side, place, self._here)
            side = weights.at[lax.axis_index("head"), own, self.own, :, gate]
            plgpu.copy_gmem_to_smem(side, self._own_smem.at[g], self._here)
        plgpu.barrier_wait(self._here)
        self._to_others = tiles.operands(self._shape, self._others_smem, gates)
        self._to_own = tiles.operands(self._shape, self._own_smem, gates)

    def give(self, x: jax.Array, now: Any) -> None:
        """Tells cotangents of sums (GATES * BLOCK, rows); ``now`` is 0 and 1 in turn."""
        self._d_smem.at[now].T[...] = tiles.transposed(x)
        plgpu.commit_smem()

    def given(self, now: Any) -> Any:
        """Where they lie, (rows, GATES * BLOCK)."""
        return self._d_smem.at[now]

    def take(self, now: Any, meanwhile: Callable[[], Any]) -> tuple[jax.Array, Any]:
        """The cotangent of h (BLOCK, rows); ``meanwhile`` runs while the tensor core works."""
        others, rows = self._shape.blocks - 1, self._d_smem.shape[1]

        def multiply(acc: Any, sides: Any) -> None:
            for g, side in enumerate(sides):
                plgpu.wgmma(acc, side, self._d_smem.at[now, :, pl.ds(g * BLOCK, BLOCK)].T)

        def product(acc: Any) -> jax.Array:
            multiply(acc, self._to_others)
            return acc[...]

        told = pl.run_scoped(product, plgpu.ACC((others * BLOCK, rows), jnp.float32))

        def product_of_own(acc: Any) -> Any:
            multiply(acc, self._to_own)
            self._sums.give(tiles.split(told, others), now)
            more = meanwhile()
            return acc[...], more

        d_h, more = pl.run_scoped(product_of_own, plgpu.ACC((BLOCK, rows), jnp.float32))
        for x in self._sums.take(now, rows):
            d_h = d_h + x
        return d_h, more
