"""How the warpgroups of a head tell each other their part of a step.

Every one makes 64 features of what the next product takes, and needs all of them. Within a thread
block they share memory. Thread blocks of a cluster each have a copy of all parts: a warpgroup
writes its own part into the others' shared memory, whose barrier counts what arrived. There are two
copies, taken in turn, and nobody can be more than one step ahead: whoever writes step t + 2 has the
parts of step t + 1 of all others, which they made after their products had read step t.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from zoo.recurrent.engine.kernels import tiles
from zoo.recurrent.engine.kernels.layout import BLOCK, Shape
from zoo.recurrent.engine.kernels.tiles import plgpu


def scratch(shape: Shape, rows: int, width: int) -> tuple[Any, ...]:
    """What an ``Exchange`` is made of: parts (2, blocks, rows, width), and barriers.

    The interpreter knows no memory of other thread blocks, so that there is a board in global
    memory, see ``board``.
    """
    parts = tiles.buffer(shape.dtype, 2, shape.blocks, rows, width)
    if shape.cluster == 1:
        return parts, plgpu.Barrier(num_arrivals=shape.groups)
    if shape.interpret:
        return parts, plgpu.ClusterBarrier(collective_axes=("part",)), plgpu.Barrier()
    return parts, plgpu.Barrier(num_arrivals=shape.cluster - 1, num_barriers=2)


def board(shape: Shape, batch: int, width: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """What the kernel puts out for the sake of its exchange: nothing, but where interpreted."""
    if shape.cluster == 1 or not shape.interpret:
        return ()
    return (jax.ShapeDtypeStruct((2, batch, shape.heads * shape.blocks * width), shape.dtype),)


class _Head:
    """Which block of which head a warpgroup has.

    Attributes:
      own: which block of its head.
      block: the same, of all heads.
      order: the blocks of the head, its own first.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self.own = lax.axis_index("group" if shape.cluster == 1 else "part")
        self.block = lax.axis_index("head") * shape.blocks + self.own
        others = (lax.rem(self.own + i, shape.blocks) for i in range(1, shape.blocks))
        self.order = [self.own, *others]


class Exchange(_Head):
    """Parts of a step in shared memory.

    Args:
      shape: see ``Shape``.
      refs: those of ``scratch``.
      boards: those of ``board``.

    Attributes: see ``_Head``, and
      rows: of a part.
    """

    def __init__(self, shape: Shape, refs: Any, boards: Any) -> None:
        super().__init__(shape)
        self._boards = boards
        self._parts, *self._here = refs
        self.rows = self._parts.shape[2]

    def part(self, now: Any, block: Any) -> Any:
        """What a block told of a step, (rows, width)."""
        return self._parts.at[now, block]

    def give(self, x: jax.Array, now: Any, wanted: Any = True) -> None:
        """Tells this warpgroup's part of a step.

        Args:
          x: (width, rows), of the dtype of operands.
          now: 0 and 1 in turn.
          wanted: whether there is a product that takes it.
        """
        x = tiles.transposed(x)
        self.part(now, self.own).T[...] = x
        plgpu.commit_smem()
        if self._shape.groups > 1:
            plgpu.barrier_arrive(self._here[0])
            plgpu.barrier_wait(self._here[0])
        if self._shape.cluster > 1:
            pl.when(wanted)(lambda: self._send(x, now))

    def wait(self, now: Any) -> None:
        """Waits for the parts of other thread blocks."""
        if self._shape.cluster > 1 and not self._shape.interpret:
            plgpu.barrier_wait(self._here[0].at[now])
            # What was stored, be it by others, is told to the tensor core here.
            plgpu.commit_smem()

    def _send(self, x: jax.Array, now: Any) -> None:
        if self._shape.interpret:
            self._post(now)
            return
        place = self.part(now, self.own).T
        for other in self.order[1:]:
            plgpu.async_store_smem(
                x, place, self._here[0].at[now], cluster_idx=other, cluster_dim="part"
            )

    def _post(self, now: Any) -> None:
        """The same through global memory."""
        (posted,) = self._boards
        told, arrived = self._here
        _, _, rows, width = self._parts.shape
        tile = pl.ds(lax.axis_index("tile") * rows, rows)
        first = lax.axis_index("head") * self._shape.blocks

        def at(block: Any) -> Any:
            return posted.at[now, tile, pl.ds((first + block) * width, width)]

        plgpu.copy_smem_to_gmem(self.part(now, self.own), at(self.own))
        plgpu.wait_smem_to_gmem(0)
        plgpu.barrier_arrive(told)
        plgpu.barrier_wait(told)
        for other in self.order[1:]:
            plgpu.copy_gmem_to_smem(at(other), self.part(now, other), arrived)
            plgpu.barrier_wait(arrived)


def sums_scratch(shape: Shape, rows: int) -> tuple[Any, ...]:
    """What ``Sums`` are made of: what others add (2, others, rows, BLOCK), and barriers."""
    if shape.interpret:
        return (plgpu.ClusterBarrier(collective_axes=("part",)),)
    others = shape.cluster - 1
    return (
        tiles.buffer(jnp.float32, 2, others, rows, BLOCK),
        plgpu.Barrier(num_arrivals=others, num_barriers=2),
    )


def sums_board(shape: Shape, batch: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """As ``board``."""
    if not shape.interpret:
        return ()
    places = 2, shape.heads * shape.blocks, shape.cluster - 1, BLOCK, batch
    return (jax.ShapeDtypeStruct(places, jnp.float32),)


class Sums(_Head):
    """What thread blocks of a cluster add to each other's numbers.

    Args:
      shape: see ``Shape``.
      refs: those of ``sums_scratch``.
      boards: those of ``sums_board``.
    """

    def __init__(self, shape: Shape, refs: Any, boards: Any) -> None:
        super().__init__(shape)
        self._boards = boards
        *self._parts, self._here = refs

    def give(self, parts: Any, now: Any) -> None:
        """Sends to every other block in ``order`` what it adds, (BLOCK, rows) in float32."""
        # A block is as far behind the others as those are before it, counted in a circle.
        for i, (other, x) in enumerate(zip(self.order[1:], parts, strict=True), 1):
            place = self._shape.blocks - 1 - i
            if self._shape.interpret:
                tiles.store_tile(self._at(other, place, now, x.shape[-1]), x)
                continue
            plgpu.async_store_smem(
                tiles.transposed(x),
                self._parts[0].at[now, place].T,
                self._here.at[now],
                cluster_idx=other,
                cluster_dim="part",
            )
        if self._shape.interpret:
            plgpu.barrier_arrive(self._here)

    def take(self, now: Any, rows: int) -> list[jax.Array]:
        """Waits for what all others add."""
        others = range(self._shape.blocks - 1)
        if self._shape.interpret:
            plgpu.barrier_wait(self._here)
            return [tiles.load_tile(self._at(self.own, i, now, rows)) for i in others]
        plgpu.barrier_wait(self._here.at[now])
        return [tiles.load_transposed(self._parts[0].at[now, i], 1)[0] for i in others]

    def _at(self, block: Any, place: int, now: Any, rows: int) -> Any:
        (posted,) = self._boards
        tile = pl.ds(lax.axis_index("tile") * rows, rows)
        block = lax.axis_index("head") * self._shape.blocks + block
        return posted.at[now, block, place, :, tile]
