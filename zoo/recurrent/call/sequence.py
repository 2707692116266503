"""A time axis that is shared out over devices: where it is, who may have it, and runs over it."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

from zoo.recurrent.call import placement
from zoo.recurrent.call.checks import ShapeError

# From the three trees that ``shared_out`` tells apart to the last carry, and a tree over time.
Run = Callable[..., tuple[Any, Any]]


def explicit_axes(xs: jax.Array, axis: int) -> tuple[str, ...]:
    """The explicit mesh axes that an axis is sharded over."""
    return tuple(placement.mesh_axes((jax.typeof(xs).sharding.spec[axis],)))


def manual_axes(name: str | None, xs: jax.Array, *same: Any, called: str = "xs") -> tuple[str, ...]:
    """The mesh axes that time is shared out over by ``sequence_axis``, in a ``jax.shard_map``.

    Args:
      name: the option.
      xs: inputs of this device.
      *same: what has no time axis, by name: pairs of a name and a tree of arrays.
      called: the name of ``xs`` where it has another one.

    Returns:
      The axis; none where there is no option, or no ``jax.shard_map`` around the call.

    Raises:
      ValueError: there is one, over other axes; or xs is whole, or other things are in parts.
    """
    manual = jax.sharding.get_abstract_mesh().manual_axes
    if name is None or not manual:
        return ()
    if name not in manual:
        raise ShapeError(
            f"sequence_axis: expected a mesh axis of the jax.shard_map around the call, "
            f"{' or '.join(map(repr, manual))}, got {name!r}. Likely cause: another mesh, or "
            "time that is whole here. Cure: the name of the axis that shards time, or None."
        )
    if name not in placement.varying(xs):
        raise ShapeError(
            f"{called}: expected a part of time on every device of the mesh axis {name!r}, as "
            f"sequence_axis says, got {xs.dtype}{list(xs.shape)} that is the same on all of them. "
            "Likely cause: in_specs of jax.shard_map without this axis, or check_vma=False, with "
            f"which nobody knows. Cure: {name!r} in the PartitionSpec of {called}, where time is."
        )
    for what, tree in same:
        if any(name in placement.varying(x) for x in jax.tree.leaves(tree)):
            raise ShapeError(
                f"{what}: expected the same on every device of the mesh axis {name!r}, which "
                "sequence_axis shares time out over, got one that varies over them. Likely cause: "
                f"in_specs with {name!r} for what has no time axis; lengths are counted, and a "
                "carry starts, from the first step of all."
            )
    return (name,)


def can_run(
    xs: jax.Array,
    axis: int,
    axes: tuple[str, ...],
    implementation: str = "auto",
    *,
    history: bool = False,
) -> None:
    """Refuses what has no answer where time is shared out.

    Args:
      xs: inputs.
      axis: where their time is.
      axes: as from ``manual_axes``.
      implementation: the option.
      history: whether the history of the carry is asked for.

    Raises:
      ValueError: it cannot be run.
    """
    names = ", ".join(map(repr, (*axes, *explicit_axes(xs, axis))))
    typed = placement.mesh_axes(jax.typeof(xs).sharding.spec)
    if axes and typed:
        raise ShapeError(
            f"xs: expected to be sharded either over explicit mesh axes or by sequence_axis, got "
            f"both: {', '.join(map(repr, (*axes, *typed)))}. Likely cause: axis_names of the "
            "jax.shard_map without the batch's axis. Cure: all of them in one jax.shard_map, or "
            "none, where the type of xs says how time is sharded."
        )
    if not names:
        return
    if implementation == "scan":
        raise ShapeError(
            f"implementation: expected 'auto', 'fused', 'parallel' or 'kernel' for a time axis "
            f"that is sharded over {names}, got 'scan', whose devices would wait for one another "
            "at every step."
        )
    if history:
        raise ShapeError(
            f"carries: expected a time axis that is whole on every device, got one sharded over "
            f"{names}. Likely cause: T + 1 carries cannot be shared out evenly. Cure: where the "
            "carry is one array, ys of a call are the carries after every step."
        )


def shared_out(
    run: Callable[[tuple[str, ...]], Run], xs: jax.Array, axes: tuple[str, ...], features: int
) -> Run:
    """Gives every device its part of time, and of a batch that explicit mesh axes shard.

    Kernels that explicit axes shard are whole on every device while it runs its part.

    Args:
      run: from mesh axes that time is shared out over to a run.
      xs: inputs (T, *batch, D).
      axes: the explicit mesh axes that their time is sharded over, or none.
      features: how many of the last axes of xs are features.

    Returns:
      The run, of trees of three kinds: arrays that are the same everywhere, arrays (*batch, ...)
      and arrays (T, *batch, ...).
    """
    sharding = jax.typeof(xs).sharding
    batch = sharding.spec[1 : xs.ndim - features]
    if not axes:
        return run(())
    if math.prod(sharding.mesh.shape[name] for name in axes) == 1:
        # XLA refuses to partition a sum over mesh axes that are all of size one.
        return _on_one(run(()), sharding.spec[0])
    # All of them: what is sharded otherwise, such as a kernel, is put together before the run.
    names = set(sharding.mesh.explicit_axes)
    whole, row, step = (PartitionSpec(), PartitionSpec(*batch), PartitionSpec(axes, *batch))

    def advance(*trees: Any) -> tuple[Any, Any]:
        specs = whole, row, step
        local = jax.shard_map(
            lambda *trees: run(axes)(*trees),
            mesh=sharding.mesh,
            axis_names=names,
            in_specs=specs,
            out_specs=(row, step),
        )
        placed = (
            jax.tree.map(lambda x, spec=spec: placement.shard(x, spec, names), tree)
            for tree, spec in zip(trees, specs, strict=True)
        )
        return local(*placed)

    return advance


def _on_one(run: Run, entry: Any) -> Run:
    """A run over a time axis that is sharded over a single device."""

    def entries(x: jax.Array, first: Any) -> jax.Array:
        spec = PartitionSpec(first, *jax.typeof(x).sharding.spec[1:])
        return jax.sharding.reshard(x, spec)

    def advance(same: Any, rows: Any, steps: Any) -> tuple[Any, Any]:
        steps = jax.tree.map(lambda x: entries(x, None), steps)
        final, out = run(same, rows, steps)
        return final, jax.tree.map(lambda x: entries(x, entry), out)

    return advance
