"""How the warpgroups of a head tell each other their part of a step.

Every one makes 64 features of what the next product takes, and needs all of them. Within a thread
block they share memory. Thread blocks of a cluster each have a copy of all parts: a warpgroup
writes its own part into the others' shared memory, whose barrier counts what arrived. There are two
copies, taken in turn, and nobody can be more than one step ahead: whoever writes step t + 2 has the
parts of step t + 1 of all others, which they made after their products had read step t.
"""

from typing import Any

import jax
from jax import lax
from jax.experimental import pallas as pl

from zoo.recurrent.engine.kernels import tiles
from zoo.recurrent.engine.kernels.layout import Shape
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


class Exchange:
    """Parts of a step in shared memory.

    Args:
      shape: see ``Shape``.
      refs: those of ``scratch``.
      boards: those of ``board``.

    Attributes:
      own: which block of its head this warpgroup has.
      block: the same, of all heads.
      order: the blocks in the order of this warpgroup's products, its own first.
    """

    def __init__(self, shape: Shape, refs: Any, boards: Any) -> None:
        self._shape, self._boards = shape, boards
        self._parts, *self._here = refs
        self.own = lax.axis_index("group" if shape.cluster == 1 else "part")
        self.block = lax.axis_index("head") * shape.blocks + self.own
        self.order = [
            self.own,
            *(lax.rem(self.own + i, shape.blocks) for i in range(1, shape.blocks)),
        ]

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
