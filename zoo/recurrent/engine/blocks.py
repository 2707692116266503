"""Time cut into blocks: whole ones that are scanned over, and what is left at the end."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

Tree = Any


def block_length(steps: int, target: int) -> int:
    """The length to cut ``steps`` into: a divisor near ``target`` where there is one.

    A rest is a second program to compile beside that of the whole blocks.
    """
    if at_most(steps, target) is steps:
        return steps
    near = (*range(target, target // 2, -1), *range(target + 1, 2 * target + 1))
    return next((length for length in near if steps % length == 0), target)


def at_most(steps: int, length: int) -> int:
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
            whole = jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), whole)
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
