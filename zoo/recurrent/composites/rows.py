"""The batch in trees of any shapes: on which axes its rows lie, and what is done row by row."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from zoo.recurrent.call import conditions, placement

Axes = tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where the batch axes lie in every leaf of a tree.

    A leaf whose shape does not follow the batch (a step counter) belongs to all rows together. A
    step is taken in it where any row takes one, and it is reset where all of these rows are.

    Attributes:
      batch: sizes of the batch axes.
      axes: for each leaf its batch axes, in their order; None where it belongs to all rows.

    Example:
      >>> tree = [jax.ShapeDtypeStruct(shape, float) for shape in ((2, 5, 3), ())]
      >>> leading(tree, (2, 5)).axes
      ((0, 1), None)
    """

    batch: tuple[Any, ...]
    axes: tuple[Axes, ...]

    def choose(self, each: jax.Array, together: jax.Array, yes: Any, no: Any) -> Any:
        """Chooses between two trees.

        Args:
          each: bool (*batch,), for leaves that have rows.
          together: bool (), for those that belong to all rows.
          yes: the tree where it is True.
          no: the tree where it is False.
        """

        def pick(axes: Axes, a: jax.Array, b: jax.Array) -> jax.Array:
            return jnp.where(together if axes is None else _spread(each, axes, b.ndim), a, b)

        return self._map(pick, yes, no)

    def place(self, tree: Any, xs: jax.Array, feature_axes: int) -> Any:
        """Places a tree as one step of ``xs`` (T, *batch, *features) is, for a loop to carry it."""
        zero = jnp.sum(jnp.zeros_like(xs[0]), axis=tuple(range(-feature_axes, 0)))

        def put(axes: Axes, x: jax.Array) -> jax.Array:
            like = jnp.sum(zero) if axes is None else _spread(zero, axes, x.ndim)
            if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                return placement.match(x, like)
            data = jax.random.key_data(x)
            like = jnp.expand_dims(like, tuple(range(like.ndim, data.ndim)))
            return jax.random.wrap_key_data(
                placement.match(data, like), impl=jax.random.key_impl(x)
            )

        return self._map(put, tree)

    def largest(self, tree: Any, xs: jax.Array, feature_axes: int) -> list[jax.Array]:
        """Returns arrays (*batch, 1, ...), not finite in the rows where a leaf is not."""
        features = tuple(range(-feature_axes, 0))
        found = [jnp.sum(jnp.zeros_like(xs[0]), axis=features, keepdims=True)]
        for axes, x in zip(self.axes, jax.tree.leaves(tree), strict=True):
            if axes is not None and has_nan(x):
                others = tuple(k for k in range(x.ndim) if k not in axes)
                size = jnp.max(jnp.abs(x), axis=others, initial=0)
                found.append(size.reshape(self.batch + (1,) * feature_axes))
        return found

    def finite(self, tree: Any) -> Any:
        """Writes zeros where leaves that have rows are not finite."""

        def mend(axes: Axes, x: jax.Array) -> jax.Array:
            if axes is None or not has_nan(x):
                return x
            return jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x))

        return self._map(mend, tree)

    def poison(self, tree: Any, poisoned: jax.Array | None, time: int = 0) -> Any:
        """Writes NaN in poisoned rows; whole numbers, which have none, stay.

        Args:
          tree: the tree; its leaves have ``time`` axes before all others.
          poisoned: bool, those axes and the batch's; None for nowhere.
          time: how many.
        """

        def write(axes: Axes, x: jax.Array) -> jax.Array:
            if axes is None or not has_nan(x):
                return x
            moved = (*range(time), *(k + time for k in axes))
            first = tuple(range(len(moved)))
            x = conditions.poison(jnp.moveaxis(x, moved, first), poisoned)
            return jnp.moveaxis(x, first, moved)

        return tree if poisoned is None else self._map(write, tree)

    def history(self, first: Any, after: Any, axis: int, reverse: bool) -> Any:
        """Puts the first tree before those after every step (T, ...).

        Time goes before the batch axis that it stands before in xs, at ``axis``; it comes first in
        leaves that belong to all rows.
        """

        def join(axes: Axes, first: jax.Array, after: jax.Array) -> jax.Array:
            where = 0
            if axes:
                where = axes[axis] if axis < len(axes) else axes[-1] + 1
            return conditions.with_first(first, after, where, reverse)

        return self._map(join, first, after)

    def _map(self, function: Any, tree: Any, *others: Any) -> Any:
        leaves, treedef = jax.tree.flatten(tree)
        rest = [treedef.flatten_up_to(other) for other in others]
        return treedef.unflatten(map(function, self.axes, leaves, *rest))


def find(
    spec: Any, batch: tuple[Any, ...], spec_of: Callable[[tuple[Any, ...]], Any], needed: bool
) -> Rows:
    """Finds the batch axes of a carry.

    Args:
      spec: the carry's tree of ``jax.ShapeDtypeStruct``.
      batch: sizes of the batch axes.
      spec_of: returns the same for other sizes; it may fail, where sizes have to do.
      needed: whether to insist on leaves that have rows or have none, as conditions do.

    Raises:
      ValueError: a leaf follows the batch in another way.
    """
    other = tuple(size + 1 for size in batch)
    try:
        wider = spec_of(other)
    except Exception:
        # The cell has no initial carry, or none for another batch.
        return leading(spec, batch)
    found = following(spec, batch, wider, other)
    if found is None and needed:
        shapes, others = (jax.tree.map(lambda x: x.shape, tree) for tree in (spec, wider))
        raise ValueError(
            f"carry: expected leaves that have the batch axes {batch}, or do not depend on them, "
            f"where seq_lengths, mask or resets are given, got the shapes {shapes} and, for the "
            f"batch axes {other}, {others}. Likely cause: batch axes were merged with others; keep "
            "them apart in the carry, and merge them in the step."
        )
    return found or leading(spec, batch)


def leading(tree: Any, batch: tuple[Any, ...]) -> Rows:
    """Finds batch axes by their sizes: leaves that begin with them have rows, others do not."""

    def find(x: Any) -> Axes:
        return tuple(range(len(batch))) if jnp.shape(x)[: len(batch)] == batch else None

    return Rows(batch, tuple(map(find, jax.tree.leaves(tree))))


def following(
    tree: Any, batch: tuple[Any, ...], other: Any, other_batch: tuple[Any, ...]
) -> Rows | None:
    """Finds batch axes by what follows the batch: the same tree for another batch differs there.

    Returns:
      The rows; None where a leaf follows the batch in another way than by having its axes.
    """
    if not batch:
        return leading(tree, batch)
    if jax.tree.structure(tree) != jax.tree.structure(other):
        return None
    found: list[Axes] = []
    for one, two in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        if one.ndim != two.ndim:
            return None
        axes = tuple(k for k in range(one.ndim) if one.shape[k] != two.shape[k])
        sizes = [tuple(x.shape[k] for k in axes) for x in (one, two)]
        if axes and sizes != [batch, other_batch]:
            return None
        found.append(axes or None)
    return Rows(batch, tuple(found))


def has_nan(x: jax.Array) -> bool:
    """Whether the dtype of ``x`` has a NaN."""
    return jnp.issubdtype(x.dtype, jnp.inexact)


def like_spec(carry: Any, spec: Any, cell: Any = None) -> Any:
    """Casts a carry; one that a step of ``cell`` has made is checked as well."""

    def cast(x: Any, like: Any) -> jax.Array:
        x = jnp.asarray(x)
        return x if x.dtype == like.dtype else x.astype(like.dtype)

    def fits(x: Any, like: Any) -> bool:
        exact = not jnp.issubdtype(like.dtype, jnp.inexact)
        loses = exact and jnp.issubdtype(jnp.asarray(x).dtype, jnp.inexact)
        return jnp.shape(x) == like.shape and not loses

    same = cell is None or jax.tree.structure(carry) == jax.tree.structure(spec)
    if cell is not None and not (same and all(jax.tree.leaves(jax.tree.map(fits, carry, spec)))):
        made = jax.tree.map(lambda x: jax.typeof(jnp.asarray(x)).str_short(), carry)
        wanted = jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", spec)
        raise TypeError(
            f"scanned: expected a step of {type(cell).__name__} to return a carry like the one it "
            f"was given, {wanted}, got {made}. Likely cause: initialize_carry, or the carry that "
            "was passed, and the step do not agree."
        )
    return jax.tree.map(cast, carry, spec)


def shared_signals(known: conditions.Steps, layout: Rows) -> dict[str, jax.Array]:
    """The signals of leaves that belong to all rows, bool (T,)."""
    signals: dict[str, jax.Array] = {}
    if None not in layout.axes:
        return signals
    batch = tuple(range(1, len(layout.batch) + 1))
    if known.taken is not None:
        valid = jnp.ones_like(known.taken) if known.valid is None else known.valid
        signals["any taken"] = valid.any(axis=batch)
    if known.resets is not None:
        reset = known.resets if known.valid is None else known.resets | ~known.valid
        signals["all reset"] = reset.all(axis=batch) & known.resets.any(axis=batch)
    return signals


def outputs(y: jax.Array, known: conditions.Steps, batch: tuple[int, ...], axis: int) -> jax.Array:
    """What a call returns of outputs (T, ...)."""
    if not _has_rows(y.shape[1:], batch):
        valid = known.valid
        if valid is not None:
            valid = valid.any(axis=tuple(range(1, valid.ndim)))
        return conditions.outputs(y, conditions.Steps(valid, None))
    if not has_nan(y):
        known = conditions.Steps(known.taken, None)
    return jnp.moveaxis(conditions.outputs(y, known), 0, axis)


def repeat(y: Any, batch: tuple[int, ...], steps: int, axis: int) -> Any:
    """The outputs of one step as those of all."""

    def repeat(y: Any) -> jax.Array:
        y = jnp.asarray(y)
        where = axis if _has_rows(y.shape, batch) else 0
        shape = (*y.shape[:where], steps, *y.shape[where:])
        return jnp.broadcast_to(jnp.expand_dims(y, where), shape)

    return jax.tree.map(repeat, y)


def _has_rows(shape: tuple[int, ...], batch: tuple[int, ...]) -> bool:
    return shape[: len(batch)] == batch


def _spread(x: jax.Array, axes: tuple[int, ...], ndim: int) -> jax.Array:
    return jnp.expand_dims(x, tuple(k for k in range(ndim) if k not in axes))
