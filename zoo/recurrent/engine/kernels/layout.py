"""How a gated recurrence is cut: heads, blocks of features whose gates lie together, and rows."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

BLOCK = 64
"""Features whose gates lie together: as many rows as a tensor core's left operand has."""

RESET, HELD = 1, 2
"""What a row's code says of a step: the carry is replaced before it, or stays as it was."""

# Streaming multiprocessors of an H100 or H200 (SXM).
_MULTIPROCESSORS = 132
_ROWS = (8, 16, 32)


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is known of a recurrence before there is an array.

    Attributes:
      cell: the gates, see ``gates``.
      heads: number of blocks of the recurrent kernel.
      size: features per head, 64 or 128.
      conditions: whether there are resets or masks.
      interpret: how to interpret kernels where there is no GPU, or False.
    """

    cell: Any
    heads: int
    size: int
    conditions: bool
    interpret: Any = False

    @property
    def groups(self) -> int:
        """Blocks of features per head; a warpgroup each."""
        return self.size // BLOCK

    def rows(self, batch: int) -> int:
        """Batch elements per program: the fewest with which all programs run at once.

        Eight were the fastest in all shapes that were measured, up to 128 programs: they fill the
        most multiprocessors. Beyond one program for each, rows that wait for others to finish take
        a step's time each, and wider steps take less than twice that of narrow ones.
        """
        # With 128 features, 32 rows beside the recurrent kernel do not fit in shared memory.
        choices = _ROWS[: 4 - self.groups]
        for rows in choices:
            if -(-batch // rows) * self.heads <= _MULTIPROCESSORS:
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
