"""Time in parts, one on each device: what a part knows of the others, at one meeting."""

import dataclasses
import itertools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Arrays = TypeVar("Arrays")
"""An array, or a tree of arrays."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """Equal parts of time on the devices of some mesh axes, inside of a ``jax.shard_map``.

    The first of the axes is the slowest, as in a ``PartitionSpec``. Hashable.

    Attributes:
      axes: the names of the mesh axes; of none where time is whole.
      reverse: whether time runs backwards, from the last part to the first.
    """

    axes: tuple[str, ...] = ()
    reverse: bool = False

    def __bool__(self) -> bool:
        """Whether time is in parts at all."""
        return bool(self.axes)

    @property
    def count(self) -> int:
        """How many parts there are."""
        return jax.lax.axis_size(self.axes)

    def backwards(self) -> "Parts":
        """The same parts in the other order."""
        return dataclasses.replace(self, reverse=not self.reverse)

    def first_step(self, steps: int) -> Any:
        """The number of this part's first step in all of time, where a part has ``steps``."""
        return jax.lax.axis_index(self.axes) * steps if self else 0

    def steps_before(self, steps: int) -> Any:
        """How many steps are taken before those of this part."""
        if not (self and self.reverse):
            return self.first_step(steps)
        return (self.count - 1 - jax.lax.axis_index(self.axes)) * steps

    def is_first(self) -> jax.Array:
        """Whether time begins in this part; where it runs backwards, with the last one."""
        return jax.lax.axis_index(self.axes) == (self.count - 1 if self.reverse else 0)

    def gather(self, tree: Arrays) -> Arrays:
        """What every part has, arrays (parts, ..., width), for arrays (..., width) of one dtype.

        A meeting of all devices, with one message from each.
        """
        leaves, structure = jax.tree.flatten(tree)
        ends = list(itertools.accumulate(x.shape[-1] for x in leaves))
        # Tiled: where a batch is sharded over explicit axes, a new axis would get their place.
        own = jnp.concatenate(leaves, axis=-1)[None]
        every = jax.lax.all_gather(own, self.axes, tiled=True)
        return jax.tree.unflatten(structure, jnp.split(every, ends[:-1], axis=-1))

    def before(self, after: Arrays, start: Arrays) -> Arrays:
        """What enters this part: what left the one before it, or ``start``.

        Args:
          after: what leaves every part, arrays (parts, ...).
          start: what enters the first one, arrays (...).
        """
        step = 1 if self.reverse else -1
        index = jnp.clip(jax.lax.axis_index(self.axes) + step, 0, self.count - 1)

        def pick(after: jax.Array, start: jax.Array) -> jax.Array:
            left = jax.lax.dynamic_index_in_dim(after, index, keepdims=False)
            return jnp.where(self.is_first(), start, left)

        return jax.tree.map(pick, after, start)

    def of_last(self, tree: Arrays) -> Arrays:
        """What the last part has, on all devices; selected, so nothing of others matters."""
        if not self:
            return tree
        last = self.backwards().is_first()

        def share(x: jax.Array) -> jax.Array:
            # Not all platforms add numbers of sixteen bits up; one number is never rounded.
            wide = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
            own = jnp.where(last, wide, jnp.zeros_like(wide))
            return jax.lax.psum(own, self.axes).astype(x.dtype)

        return jax.tree.map(share, tree)
