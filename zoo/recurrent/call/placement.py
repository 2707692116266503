"""Runs over time on several devices: arrays of one kind in a loop, and no meetings inside it."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from zoo.recurrent.cell import Carry, Weights

# From weights, fixed, start (*batch, width), xs (T, *batch, D) and signals, see ``Engine.run``, to
# the last carry, that after every step (T, *batch, width), and what every step puts out, or None.
Run = Callable[..., tuple[Carry, Carry, Any]]

# Where the batch axes of a run's arguments and results begin.
_ARGUMENTS = (None, 0, 0, 1, 1)
_RESULTS = (0, 1, 1)
_XS = 3


def match(x: jax.Array, like: jax.Array) -> jax.Array:
    """Places ``x`` as ``like`` is, with which it broadcasts; the values are the same."""
    zero = jnp.zeros_like(like, x.dtype)
    return x | zero if x.dtype == bool else x + zero


def like_data(tree: Any, xs: jax.Array, feature_axes: int = 1) -> Any:
    """Places arrays (*batch, ...) as one step of ``xs`` (T, *batch, ...) is; values are the same.

    A plain ``jnp.zeros`` would be the same on every device; the carry of a loop must vary over
    devices, or be sharded, as what the loop makes of it.
    """
    zero = jnp.sum(jnp.zeros_like(xs[0]), axis=tuple(range(-feature_axes, 0)))

    def place(x: jax.Array) -> jax.Array:
        return match(x, zero.reshape(zero.shape + (1,) * (x.ndim - zero.ndim)))

    return jax.tree.map(place, tree)


def mark_varying(*trees: Any) -> Any:
    """Marks all arrays as varying over every mesh axis that one of them varies over.

    Inside ``jax.shard_map``, parameters are the same on every device and data is not. Marked
    here, outside of any custom derivative, a parameter's gradient is summed over the devices by
    JAX itself.
    """
    every: frozenset = frozenset().union(*(varying(x) for x in jax.tree.leaves(trees)))
    if not every:
        return trees

    def mark(x: jax.Array) -> jax.Array:
        missing = tuple(sorted(every - varying(x)))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(mark, trees)


def reshard_like(tree: Any, like: Any) -> Any:
    """Brings arrays back to the explicit shardings of others of the same shapes."""

    def bring(x: jax.Array, like: jax.Array) -> jax.Array:
        sharding = jax.typeof(like).sharding
        return x if jax.typeof(x).sharding == sharding else jax.sharding.reshard(x, sharding)

    return jax.tree.map(bring, tree, like)


def over_devices(run: Run, feature_axes: int = 1) -> Run:
    """Makes a run over time fit for arrays that are spread over devices, however they are.

    Args:
      run: the run on arrays of one device.
      feature_axes: how many of the last axes of xs are features.

    Returns:
      The same, for arrays sharded over batch or features, under ``jit``, in ``jax.shard_map`` and
      on explicit meshes; ``run`` itself, as the compiler sees it, where there is no mesh.
    """
    own = _by_devices(_all_varying(run), feature_axes)
    return _in_parts(_free_features(own, feature_axes), feature_axes)


def _by_devices(run: Run, feature_axes: int) -> Run:
    """Gives every device of explicit mesh axes its part of the batch.

    A kernel's gradient is a sum over steps and over the batch. The compiler, left to itself, adds
    over devices wherever something is added: at every step. Here devices meet once, after the
    loop, where parameters were marked as varying (``mark_varying``).
    """

    def advance(*arguments: Any) -> tuple[Carry, Carry, Any]:
        sharding = jax.typeof(arguments[_XS]).sharding
        batch = sharding.spec[1:-feature_axes]
        axes = set(mesh_axes(batch))
        # XLA refuses to partition a sum over mesh axes that are all of size one.
        if math.prod(sharding.mesh.shape[name] for name in axes) == 1:
            return run(*arguments)

        def spec(begin: int | None) -> PartitionSpec:
            return PartitionSpec() if begin is None else PartitionSpec(*(None,) * begin, *batch)

        local = jax.shard_map(
            run,
            mesh=sharding.mesh,
            axis_names=axes,
            in_specs=_each(lambda x, begin: spec(begin), arguments, _ARGUMENTS),
            out_specs=tuple(map(spec, _RESULTS)),
        )
        return local(*_each(lambda x, begin: shard(x, spec(begin), axes), arguments, _ARGUMENTS))

    return advance


def _in_parts(run: Run, feature_axes: int) -> Run:
    """Cuts the batch into as many parts as mesh axes left to the compiler can share out.

    Whether such an axis shards the batch is not known while tracing, only that the data lies on
    its mesh. The gradients of kernels are summed for each part by itself, and over parts after
    the loop, so that devices have nothing to tell each other before. Kernels are not copied.
    """

    def advance(*arguments: Any) -> tuple[Carry, Carry, Any]:
        parts = _parts(arguments[_XS], feature_axes)
        if parts == 1:
            return run(*arguments)

        def split(x: jax.Array, axis: int | None) -> jax.Array:
            if axis is None:
                return x
            before, size, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
            return x.reshape((*before, parts, size // parts, *after))

        def join(x: jax.Array, axis: int) -> jax.Array:
            before, (count, size, *after) = x.shape[:axis], x.shape[axis:]
            return x.reshape((*before, count * size, *after))

        axes = _each(lambda x, axis: axis, arguments, _ARGUMENTS)
        results = jax.vmap(run, axes, _RESULTS)(*_each(split, arguments, _ARGUMENTS))
        return _each(join, results, _RESULTS)

    return advance


def _parts(xs: jax.Array, feature_axes: int) -> int:
    """The largest number of equal parts of the first batch axis that devices may want."""
    sharding = jax.typeof(xs).sharding
    known = mesh_axes(sharding.spec[1:-feature_axes])
    if known or xs.ndim < feature_axes + 2 or is_symbolic_dim(xs.shape[1]):
        return 1
    mesh = jax.sharding.get_abstract_mesh() if sharding.mesh.empty else sharding.mesh
    kinds = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    left = [size for size, kind in kinds if kind == AxisType.Auto]
    return math.gcd(xs.shape[1], math.prod(left))


def _all_varying(run: Run) -> Run:
    return lambda *arguments: run(*mark_varying(*arguments))


def _free_features(run: Run, feature_axes: int) -> Run:
    """Leaves explicit mesh axes that features are sharded over to the compiler.

    With kernels sharded over their columns, a new carry is sharded otherwise than the one before;
    how the pieces come together again is what the compiler is good at. What comes out is whole
    over features.
    """

    def advance(weights: Weights, fixed: Any, start: Carry, xs: jax.Array, signals: Any) -> Any:
        spec = jax.typeof(xs).sharding.spec
        axes = set(mesh_axes(spec[-feature_axes:]))
        for x in jax.tree.leaves(weights):
            axes.update(mesh_axes(jax.typeof(x).sharding.spec))
        axes -= set(mesh_axes(spec[1:-feature_axes]))
        if not axes:
            return run(weights, fixed, start, xs, signals)

        def placed(x: jax.Array, *leading: None) -> NamedSharding:
            sharding = jax.typeof(x).sharding
            return NamedSharding(sharding.mesh, PartitionSpec(*leading, *sharding.spec))

        every = tuple(placed(x, None) for x in start)
        out = tuple(placed(x) for x in start), every, every[-1]
        free: Any = jax.sharding.auto_axes(run, axes=tuple(sorted(axes)), out_sharding=out)
        return free(weights, fixed, start, xs, signals)

    return advance


def _each(function: Callable[[Any, Any], Any], trees: tuple, begins: tuple) -> tuple:
    """Applies ``function`` to every array and its first batch axis, None where it has none."""

    def apply(tree: Any, begin: int | None) -> Any:
        return jax.tree.map(
            lambda x: function(x, None if begin is None or x.ndim <= begin else begin), tree
        )

    return tuple(map(apply, trees, begins))


def shard(x: jax.Array, spec: PartitionSpec, axes: set[str]) -> jax.Array:
    """Shards an array over some explicit mesh axes as ``spec`` says, over others as it was."""
    others = [
        tuple(name for name in mesh_axes((entry,)) if name not in axes)
        for entry in jax.typeof(x).sharding.spec
    ]
    wanted = [mesh_axes((entry,)) for entry in spec] + [[]] * (x.ndim - len(spec))
    entries = [(*new, *old) or None for new, old in zip(wanted, others, strict=True)]
    return jax.sharding.reshard(x, PartitionSpec(*entries))


def mesh_axes(spec: Any) -> list[str]:
    """The mesh axes that some entries of a ``PartitionSpec`` name."""
    return [
        name for entry in spec for name in ((entry,) if isinstance(entry, str) else entry or ())
    ]


def varying(x: jax.Array) -> frozenset:
    """The mesh axes of a ``jax.shard_map`` that an array may differ over."""
    return jax.typeof(x).manual_axis_type.varying
