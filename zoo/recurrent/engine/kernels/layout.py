"""How a gated recurrence is cut: heads, blocks of features whose gates lie together, and rows."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

BLOCK = 64
"""Features whose gates lie together: as many rows as a tensor core's left operand has."""

RESET, HELD = 1, 2
"""What a row's code says of a step: the carry is replaced before it, or stays as it was."""

# Clusters of one to four thread blocks that run at once on an H200, as CUDA reports it: one for
# each of 132 multiprocessors, but a cluster has to lie in one of the parts the card is made of.
_AT_ONCE = {1: 132, 2: 66, 3: 39, 4: 30}
_ROWS = (8, 16, 32)
# Blocks of features of one head: of 16-bit numbers, and of others.
_BLOCKS, _WIDE_BLOCKS = 4, 2


def sizes(dtype: Any) -> tuple[int, ...]:
    """Features per head for which there is room: the recurrent kernel is kept in the card."""
    blocks = _BLOCKS if jnp.dtype(dtype).itemsize == 2 else _WIDE_BLOCKS
    return tuple(BLOCK * (i + 1) for i in range(blocks))


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is known of a recurrence before there is an array.

    Attributes:
      cell: the gates, see ``gates``.
      heads: number of blocks of the recurrent kernel.
      size: features per head, see ``sizes``.
      conditions: whether there are resets or masks.
      dtype: of products' operands.
      interpret: how to interpret kernels where there is no GPU, or False.
    """

    cell: Any
    heads: int
    size: int
    conditions: bool
    dtype: Any
    interpret: Any = False

    @property
    def blocks(self) -> int:
        """Blocks of features per head; a warpgroup each."""
        return self.size // BLOCK

    @property
    def cluster(self) -> int:
        """Thread blocks that share a head: as many as it takes for its recurrent kernel.

        One keeps 64 KiB of it in the registers of each of two warpgroups, where operands have 16
        bits. Otherwise every block of features has a thread block, and these write into each
        other's shared memory.
        """
        narrow = jnp.dtype(self.dtype).itemsize == 2
        return 1 if narrow and self.blocks <= 2 else self.blocks

    @property
    def groups(self) -> int:
        """Warpgroups per thread block."""
        return self.blocks // self.cluster

    def rows(self, batch: int) -> int:
        """Batch elements per program: the fewest with which all programs run at once.

        Eight were the fastest in all shapes that were measured, up to 128 programs: they fill the
        most multiprocessors. Where more would wait for others to finish, a wider step takes less
        than twice the time of a narrow one.
        """
        # With 128 features, 32 rows beside the recurrent kernel do not fit in shared memory.
        choices = _ROWS if self.blocks == 1 else _ROWS[:2]
        for rows in choices:
            if -(-batch // rows) * self.heads <= _AT_ONCE[self.cluster]:
                return rows
        return choices[-1]


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


def last_gates(x: jax.Array, gates: int, count: int) -> jax.Array:
    """The last of interleaved gates, interleaved."""
    return interleave(separate(x, gates)[..., gates - count :, :])
