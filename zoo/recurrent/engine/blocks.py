"""Time cut into blocks: whole ones that are scanned over, and what is left at the end."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jax.sharding import NamedSharding, PartitionSpec

Tree = Any


def block_length(steps: Any, target: int) -> Any:
    """The length to cut ``steps`` into: a divisor near ``target`` where there is one.

    A rest is a second program to compile beside that of the whole blocks.
    """
    if at_most(steps, target) is steps:
        return steps
    near = (*range(target, target // 2, -1), *range(target + 1, 2 * target + 1))
    return next((length for length in near if steps % length == 0), target)


def at_most(steps: Any, length: int) -> Any:
    """``length``, or ``steps`` where they are fewer, or not a number (``jax.export``)."""
    return steps if is_symbolic_dim(steps) or steps <= length else length


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How ``steps`` steps are cut into blocks of ``length``, and in which order they are visited.

    Every tree over time is held as a pair: whole blocks (N, length, ...) and a rest (r, ...),
    either of which is None where it is empty.
    """

    steps: int
    length: int
    reverse: bool = False

    def cut(self, tree: Tree) -> tuple[Tree, Tree]:
        """Cuts arrays (steps, ...) into a pair."""
        count, rest = divmod(self.steps, self.length)
        whole = count * self.length

        def blocks(x: jax.Array) -> jax.Array:
            return x[:whole].reshape((count, self.length, *x.shape[1:]))

        return (
            jax.tree.map(blocks, tree) if count else None,
            jax.tree.map(lambda x: x[whole:], tree) if rest else None,
        )

    def join(self, pair: tuple[Tree, Tree]) -> Tree:
        """The inverse of ``cut``."""
        whole, rest = pair
        if whole is not None:
            whole = jax.tree.map(
                lambda x: x.reshape((x.shape[0] * x.shape[1], *x.shape[2:])), whole
            )
        if whole is None or rest is None:
            return rest if whole is None else whole
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), whole, rest)

    def backwards(self) -> "Blocks":
        """The same cut, visited in the other order."""
        return dataclasses.replace(self, reverse=not self.reverse)

    def scan(
        self, visit: Callable[[Tree, Tree], tuple[Tree, Tree]], carry: Tree, pair: tuple[Tree, Tree]
    ) -> tuple[Tree, tuple[Tree, Tree]]:
        """Visits every block: ``visit(carry, block) -> (carry, out)``, as in ``jax.lax.scan``."""
        whole, rest = pair
        whole_out = rest_out = None
        if self.reverse and rest is not None:
            carry, rest_out = visit(carry, rest)
        if self.steps == self.length:
            carry, out = visit(carry, jax.tree.map(lambda x: x[0], whole))
            whole_out = jax.tree.map(lambda x: x[None], out)
        elif whole is not None:
            carry, whole_out = jax.lax.scan(visit, carry, whole, reverse=self.reverse)
        if not self.reverse and rest is not None:
            carry, rest_out = visit(carry, rest)
        return carry, (whole_out, rest_out)

    def steps_through(
        self,
        prepare: Callable[[Tree], Tree],
        advance: Callable[[Tree, Tree], tuple[Tree, Tree]],
        carry: Tree,
        pair: tuple[Tree, Tree],
        unroll: int = 1,
    ) -> tuple[Tree, tuple[Tree, Tree], Tree]:
        """Takes every step of every block: ``advance(carry, at) -> (carry, out)``.

        Steps write to one array of all steps. Stacked by block, they would be written, after zeros,
        to a block's array, and copied: a tenth of the forward pass of a small layer.

        Args:
          prepare: from a block to what its steps read, arrays (length, ...).
          advance: one step, as in ``jax.lax.scan``.
          carry: before the first step.
          pair: the blocks.
          unroll: steps per iteration.

        Returns:
          The last carry, the carry before every block (a pair), and ``out`` of all steps.
        """
        over = functools.partial(jax.lax.scan, reverse=self.reverse, unroll=unroll)
        if self.steps == self.length:
            block = jax.tree.map(lambda x: x[0], pair[0])
            final, out = over(advance, carry, prepare(block))
            return final, (jax.tree.map(lambda x: x[None], carry), None), out

        def write(state: Tree, at: Tree) -> tuple[Tree, None]:
            carry, written, step = state
            carry, out = advance(carry, at)
            update = functools.partial(
                jax.lax.dynamic_update_index_in_dim, axis=0, allow_negative_indices=False
            )
            written = jax.tree.map(lambda w, o: update(w, o, step), written, out)
            return (carry, written, step + (-1 if self.reverse else 1)), None

        def visit(state: Tree, block: Tree) -> tuple[Tree, Tree]:
            return over(write, state, prepare(block))[0], state[0]

        def one(carry: Tree, blocks: Tree) -> Tree:
            first = functools.partial(jax.tree.map, lambda x: x[0])
            return advance(carry, first(prepare(first(blocks))))[1]

        traced, out = jax.make_jaxpr(one, return_shape=True)(carry, pair[0])
        rooms = [_room(self.steps, aval) for aval in traced.out_avals]
        written = jax.tree.unflatten(jax.tree.structure(out), rooms)
        first = jnp.int32(self.steps - 1 if self.reverse else 0)
        (carry, written, _), entries = self.scan(visit, (carry, written, first), pair)
        return carry, entries, written


def shift(first: jax.Array, after: jax.Array, reverse: bool) -> jax.Array:
    """What there was before every step of a block, (length, ...), from what there is after each.

    Args:
      first: before the block.
      after: after every step, (length, ...).
      reverse: whether time runs backwards.
    """
    parts = [after[1:], first[None]] if reverse else [first[None], after[:-1]]
    return jnp.concatenate(parts)


def first_visited(pair: tuple[Tree, Tree], reverse: bool) -> Tree:
    """What a pair holds for the block that is visited first."""
    whole, rest = pair
    if whole is None or (reverse and rest is not None):
        return rest
    return jax.tree.map(lambda x: x[-1 if reverse else 0], whole)


def zip_pairs(*pairs: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
    """Makes one pair of tuples out of many pairs; None stays where a side is empty everywhere."""
    wholes, rests = zip(*pairs, strict=True)
    return wholes if _present(wholes[0]) else None, rests if _present(rests[0]) else None


def _present(tree: Tree) -> bool:
    return bool(jax.tree.leaves(tree))


def _room(steps: int, aval: Any) -> jax.Array:
    """Zeros (steps, ...) for what is as ``aval`` at every step, sharded or varying as it is."""
    mesh, spec = aval.sharding.mesh, aval.sharding.spec
    sharding = None if mesh.empty else NamedSharding(mesh, PartitionSpec(None, *spec))
    zeros = jnp.zeros((steps, *aval.shape), aval.dtype, out_sharding=sharding)
    varying = tuple(aval.manual_axis_type.varying)
    return jax.lax.pcast(zeros, varying, to="varying") if varying else zeros
