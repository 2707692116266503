"""Validation of parameters: those that were given, and what initialisers return."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import Scope
from flax.typing import Dtype, Initializer

from zoo.recurrent.call.checks import DTypeError, ShapeError

_USUAL = frozenset(map(jnp.dtype, ("float32", "bfloat16", "float16", "float64")))
_CURE = "Give what layer.init returns, or weights that zoo.recurrent.convert made."
_FACTORY = (
    "Likely cause: what makes an initialiser instead of one (nn.initializers.normal for "
    "nn.initializers.normal()), or one for arrays of another rank."
)


def rows(scope: Scope, name: str, shape: tuple[int | None, ...]) -> int | None:
    """The number of rows of the kernel under ``name``, or None where there are no parameters yet.

    Args:
      scope: of the layer.
      name: of the kernel.
      shape: of the kernel, None for its rows, the last axis but one.

    Raises:
      TypeError: what is there is no kernel.
      ValueError: it has no two axes, or is missing among others that are there.
    """
    subtree(scope)
    if not scope.has_variable("params", name):
        return None
    path = "/".join((*scope.path, name))
    own = _mapping(path, scope.get_variable("params", name))
    if "kernel" not in own:
        if scope.is_mutable_collection("params"):
            return None
        raise missing(f"{path}/kernel")
    kernel = _bare(own["kernel"])
    check_given(f"{path}/kernel", kernel, shape)
    return kernel.shape[-2]


def subtree(scope: Scope | None) -> None:
    """Requires what was given as the parameters of a module to be a mapping, or nothing.

    Raises:
      TypeError: it is something else.
    """
    if scope is None or scope.parent is None or scope.name is None:
        return
    subtree(scope.parent)
    if scope.parent.has_variable("params", scope.name):
        _mapping("/".join(scope.path), scope.parent.get_variable("params", scope.name))


def stacked(scope: Scope | None, name: str, count: int, norm: int | None) -> None:
    """Checks the parameters of several layers in one, before they are taken apart.

    Args:
      scope: of the layer around them.
      name: where they lie.
      count: how many layers: the first axis of every array.
      norm: the width of a layer norm under ``norm`` between them; None for none.

    Raises:
      TypeError: one of them is no floating-point array.
      ValueError: one has another first axis, or they are missing.
    """
    subtree(scope)
    assert scope is not None
    if not scope.has_variable("params", name):
        if not scope.is_mutable_collection("params"):
            raise missing("/".join((*scope.path, name)))
        return
    path = "/".join((*scope.path, name))
    given = _mapping(path, scope.get_variable("params", name))
    _stacked(path, given, count)
    if norm is None:
        return
    own = _mapping(f"{path}/norm", given.get("norm", {}))
    for leaf in ("scale", "bias"):
        if leaf in own:
            check_given(f"{path}/norm/{leaf}", _bare(own[leaf]), (count, norm))
        elif not scope.is_mutable_collection("params"):
            raise missing(f"{path}/norm/{leaf}")


def check_given(path: str, value: Any, shape: tuple[int | None, ...]) -> None:
    """Checks a parameter that was given against the layer's options; None is any size.

    Raises:
      TypeError: it is no floating-point array.
      ValueError: it has another shape.
    """
    is_array = isinstance(value, jax.Array | np.ndarray)
    if is_array and value.shape == shape and value.dtype in _USUAL:
        return
    wanted = str(tuple("D" if size is None else size for size in shape)).replace("'", "")
    expected = f"parameter {path}: expected a floating-point array of shape {wanted}"
    if not is_array:
        raise DTypeError(
            f"{expected}, got {_brief(value)}. Likely cause: variables that were made or read by "
            "hand. Cure: jnp.asarray(value, jnp.float32) for each of them."
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise DTypeError(
            f"{expected}, got {_brief(value)}. Likely cause: quantised weights, or variables of "
            "something else. Cure: cast them to float, times their scale where they have one."
        )
    if value.dtype.itemsize < 2:
        raise DTypeError(
            f"{expected}, got {_brief(value)}. Likely cause: weights stored in 8 bits or fewer, "
            "which have no arithmetic here. Cure: cast them before the call, "
            "jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables), times their scale where "
            "they have one."
        )
    if value.ndim != len(shape) or any(
        size not in (None, got) for size, got in zip(shape, value.shape, strict=True)
    ):
        raise ShapeError(
            f"parameter {path}: expected shape {wanted}, got {value.shape}. Likely cause: "
            "variables of a layer with other features, or of a stacked layer."
        )


def drawn(option: str, init: Initializer) -> Initializer:
    """An initialiser whose failures and impossible results are told in words."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> Any:
        try:
            value = init(key, shape, dtype)
        except (ShapeError, DTypeError):
            raise
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{_returns(option, shape)}, which failed: {error} {_FACTORY}") from error
        check_drawn(option, value, shape)
        return value

    return draw


def check_drawn(option: str, value: Any, shape: tuple[int, ...]) -> None:
    """Checks what an initialiser returned, in a box of Flax's or not.

    Raises:
      TypeError: it is no floating-point array.
      ValueError: it has another shape.
    """
    value = _bare(value)
    is_array = isinstance(value, jax.Array | np.ndarray)
    if not is_array or not jnp.issubdtype(value.dtype, jnp.floating):
        raise DTypeError(f"{_returns(option, shape)}, got {_brief(value)}. {_FACTORY}")
    if value.shape != shape:
        raise ShapeError(f"{_returns(option, shape)}, got {_brief(value)}.")


class MissingError(ValueError):
    """A parameter is not among the variables."""


def missing(path: str) -> ValueError:
    """The error for a parameter that was not given."""
    return MissingError(
        f"parameter {path}: expected it among the variables, got none. Likely cause: variables of "
        'another layer or with other options, or variables["params"] where variables is meant. '
        f"{_CURE}"
    )


def _mapping(path: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DTypeError(
            f"parameters {path}: expected a mapping from names to arrays, got "
            f"{_brief(value)}. Likely cause: variables of another layer. {_CURE}"
        )
    return value


def _stacked(path: str, tree: Any, count: int) -> None:
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            _stacked(f"{path}/{name}", value, count)
    else:
        tree = _bare(tree)
        rest = (None,) * (np.ndim(tree) - 1) if isinstance(tree, jax.Array | np.ndarray) else ()
        check_given(path, tree, (count, *rest))


def _returns(option: str, shape: tuple[int, ...]) -> str:
    return (
        f"{option}: expected a function (key, shape, dtype) that returns a floating-point array of "
        f"shape {shape}"
    )


def _bare(value: Any) -> Any:
    """What is in a box of Flax's, without the sharding that unboxing would ask for."""
    return jax.tree.leaves(value)[0] if isinstance(value, nn.meta.AxisMetadata) else value


def _brief(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return f"{value!r:.60} of type {type(value).__name__}"
