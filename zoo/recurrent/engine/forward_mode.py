"""Linear maps of tangents that are run one way and transposed another, as one operation.

``jax.custom_vjp`` cannot be differentiated forwards, and the rule of a ``jax.custom_jvp`` is
transposed by JAX, as it sees fit. The rule of a ``jax.custom_jvp`` that ends in ``linear`` has
both: forwards ``push`` is run, in reverse mode ``pull``, and neither is traced for the other.
"""

import dataclasses
import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from zoo.recurrent import unstable

Tree = Any

_PRIMITIVE = "jax.extend.core:Primitive"
_UNMAPPED = "jax.extend.core:unmapped_aval"
_JVPS = "jax.interpreters.ad:primitive_jvps"
_TRANSPOSES = "jax.interpreters.ad:primitive_transposes"
_ZERO = "jax.interpreters.ad:Zero"
_DENSE = "jax.interpreters.ad:instantiate_zeros"
_UNDEFINED = "jax.interpreters.ad:is_undefined_primal"
_BATCHERS = "jax.interpreters.batching:fancy_primitive_batchers"
_REGISTER = "jax.interpreters.mlir:register_lowering"
_LOWER = "jax.interpreters.mlir:lower_fun"
_NEEDED = (
    *(_PRIMITIVE, _UNMAPPED, _JVPS, _TRANSPOSES, _ZERO, _DENSE, _UNDEFINED),
    *(_BATCHERS, _REGISTER, _LOWER),
)


class Map(Protocol):
    """A linear map of tangents; hashable."""

    def push(self, residuals: Tree, tangents: Tree) -> Tree:
        """The map. Tangents that are zero are None."""

    def pull(self, residuals: Tree, cotangents: Tree) -> Tree:
        """Its transpose: as ``tangents``, with more in the place of None. Zeros are None again."""


def available() -> bool:
    """Whether the installed JAX has what ``linear`` needs."""
    return all(unstable.find(path) is not None for path in _NEEDED)


def linear(map_: Map, residuals: Tree, tangents: Tree, like: Tree) -> Tree:
    """Maps tangents.

    Args:
      map_: the map and its transpose.
      residuals: arrays that the map depends on.
      tangents: arrays, None where they are zero.
      like: arrays whose tangents come out.

    Returns:
      The tangents of ``like``.
    """
    fixed, fixed_tree = jax.tree.flatten(residuals)
    moving, moving_tree = jax.tree.flatten(tangents)
    avals, out_tree = jax.tree.flatten(jax.tree.map(_tangent_aval, like))
    flat = _Flat(map_, fixed_tree, moving_tree, out_tree)
    out = _operation().bind(*fixed, *moving, map_=flat, count=len(fixed), avals=tuple(avals))
    return jax.tree.unflatten(out_tree, out)


def _tangent_aval(x: jax.Array) -> Any:
    return jax.typeof(x).to_tangent_aval()


@dataclasses.dataclass(frozen=True)
class _Flat:
    """A map of lists."""

    map_: Map
    residuals: Any
    tangents: Any
    results: Any

    def push(self, residuals: list, tangents: list) -> list:
        residuals = jax.tree.unflatten(self.residuals, residuals)
        return jax.tree.leaves(
            self.map_.push(residuals, jax.tree.unflatten(self.tangents, tangents))
        )

    def pull(self, residuals: list, cotangents: list) -> list:
        residuals = jax.tree.unflatten(self.residuals, residuals)
        found = self.map_.pull(residuals, jax.tree.unflatten(self.results, cotangents))
        asked = jax.tree.unflatten(self.tangents, [True] * self.tangents.num_leaves)
        return jax.tree.leaves(
            jax.tree.map(
                lambda asked, own: own if asked else None, asked, found, is_leaf=lambda x: x is None
            )
        )


@dataclasses.dataclass(frozen=True)
class _Mapped:
    """A map of lists over a first axis, which None in ``axes`` says that an operand lacks."""

    map_: Any
    size: int
    axes: tuple[tuple[int | None, ...], tuple[int | None, ...]]
    spmd_axis_name: Any

    def _vmap(self, function: Any, *axes: Any) -> Any:
        return jax.vmap(function, axes, axis_size=self.size, spmd_axis_name=self.spmd_axis_name)

    def push(self, residuals: list, tangents: list) -> list:
        return self._vmap(self.map_.push, *map(list, self.axes))(residuals, tangents)

    def pull(self, residuals: list, cotangents: list) -> list:
        found = self._vmap(self.map_.pull, list(self.axes[0]), 0)(residuals, cotangents)
        return [
            jnp.sum(x, axis=0) if axis is None else x
            for x, axis in zip(found, self.axes[1], strict=True)
        ]


@functools.cache
def _operation() -> Any:
    operation = unstable.find(_PRIMITIVE)("recurrent_layer_tangent")
    operation.multiple_results = True
    operation.def_impl(_run)
    operation.def_abstract_eval(lambda *_, map_, count, avals: list(avals))
    unstable.find(_JVPS)[operation] = _jvp
    unstable.find(_TRANSPOSES)[operation] = _transpose
    unstable.find(_BATCHERS)[operation] = _batch
    unstable.find(_REGISTER)(operation, unstable.find(_LOWER)(_run, multiple_results=True))
    return operation


def _run(*operands: Any, map_: Any, count: int, avals: tuple) -> list:
    return map_.push(list(operands[:count]), list(operands[count:]))


def _transpose(cotangents: Any, *operands: Any, map_: Any, count: int, avals: tuple) -> list:
    zero, undefined = unstable.find(_ZERO), unstable.find(_UNDEFINED)
    cotangents = [None if isinstance(d, zero) else d for d in cotangents]
    if all(d is None for d in cotangents):
        return [None] * len(operands)
    found = map_.pull(list(operands[:count]), cotangents)
    asked = zip(operands[count:], found, strict=True)
    return [None] * count + [own if undefined(t) else None for t, own in asked]


def _jvp(primals: Any, tangents: Any, *, map_: Any, count: int, avals: tuple) -> Any:
    zero, dense = unstable.find(_ZERO), unstable.find(_DENSE)
    about = {"map_": map_, "count": count, "avals": avals}
    out, parts = _operation().bind(*primals, **about), []
    if not all(isinstance(t, zero) for t in tangents[count:]):
        parts.append(_operation().bind(*primals[:count], *map(dense, tangents[count:]), **about))
    which = [i for i, t in enumerate(tangents[:count]) if not isinstance(t, zero)]
    if which:

        def push(chosen: list) -> list:
            operands = dict(enumerate(primals)) | dict(zip(which, chosen, strict=True))
            return _run(*operands.values(), **about)

        directions = [tangents[i] for i in which]
        parts.append(jax.jvp(push, ([primals[i] for i in which],), (directions,))[1])
    return out, [sum(own[1:], own[0]) for own in zip(*parts, strict=True)]


def _batch(axis: Any, operands: Any, axes: Any, *, map_: Any, count: int, avals: tuple) -> Any:
    if all(a is None for a in axes):
        out = _operation().bind(*operands, map_=map_, count=count, avals=avals)
        return out, [None] * len(out)
    operands = [
        x if a is None else jnp.moveaxis(x, a, 0) for x, a in zip(operands, axes, strict=True)
    ]
    axes = tuple(None if a is None else 0 for a in axes)
    mapped = _Mapped(map_, axis.size, (axes[:count], axes[count:]), axis.spmd_name)
    unmapped = unstable.find(_UNMAPPED)
    avals = tuple(unmapped(axis.size, 0, aval, axis.explicit_mesh_axis) for aval in avals)
    out = _operation().bind(*operands, map_=mapped, count=count, avals=avals)
    return out, [0] * len(out)
