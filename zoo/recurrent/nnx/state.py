"""The variables of a Linen layer as attributes of an NNX module, at the same paths, and back."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from flax import nnx
from flax.core import meta

Path = tuple[str, tuple[str, ...]]
"""A collection of Linen, and the path of a variable in it."""


def paths(variables: Mapping[str, Any]) -> tuple[Path, ...]:
    """Returns where the variables of a Linen layer lie."""
    return tuple(path for path, _ in _leaves(variables))


def attach(module: nnx.Module, variables: Mapping[str, Any]) -> None:
    """Gives a module the variables of a Linen layer: ``params`` as ``nnx.Param``, and so on.

    Raises:
      ValueError: two variables have the same path, or a name that the module needs for itself.
    """
    tree: dict[str, Any] = {}
    for (collection, path), value in _leaves(variables):
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        if not isinstance(node, dict) or path[-1] in node:
            raise ValueError(
                f"variables: expected one variable at {'/'.join(path)}, got several, one of them "
                f"in the collection {collection!r}. NNX keeps all kinds of variables in one tree."
            )
        node[path[-1]] = _variable(collection, value)
    for name, node in tree.items():
        if hasattr(module, name):
            raise ValueError(
                f"variables: {name!r} is the name of a parameter and of an attribute of "
                f"{type(module).__name__}. Cure: another name for the inner module."
            )
        setattr(module, name, _nested(node))


def collect(module: nnx.Module, where: tuple[Path, ...]) -> dict[str, Any]:
    """Returns the values of a module's variables as Linen wants them, without metadata."""
    values: dict[str, Any] = {}
    for collection, path in where:
        into = values.setdefault(collection, {})
        for name in path[:-1]:
            into = into.setdefault(name, {})
        into[path[-1]] = _value(_at(module, path))
    return values


def boxed(module: nnx.Module, where: tuple[Path, ...]) -> dict[str, Any]:
    """Returns the variables as Linen's ``init`` does: with the boxes that hold metadata."""
    values = collect(module, where)
    for collection, path in where:
        metadata = dict(_at(module, path).get_metadata())
        kind = metadata.pop("linen_meta_type", None)
        if kind is None:
            continue
        into = values[collection]
        for name in path[:-1]:
            into = into[name]
        metadata["value"] = into[path[-1]]
        into[path[-1]] = kind.from_nnx_metadata(metadata)
    return values


def write(module: nnx.Module, updates: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Writes what a call has changed of variables, such as running averages, to the module."""
    before = dict(_leaves(given))
    for (collection, path), value in _leaves(updates):
        # What was not changed is not written: it may come from outside of a transformation, whose
        # body must not write it.
        if (collection, path) in before and value is not before[collection, path]:
            _at(module, path).set_value(value)


def _leaves(variables: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    for collection, tree in variables.items():
        for path, value in _flat(tree, ()):
            yield (collection, path), value


def _flat(tree: Any, prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(tree, Mapping):
        yield prefix, tree
        return
    for name, inner in tree.items():
        yield from _flat(inner, (*prefix, name))


def _variable(collection: str, value: Any) -> nnx.Variable[Any]:
    kind = nnx.variable_type_from_name(collection, allow_register=True)
    if not isinstance(value, meta.AxisMetadata):
        return kind(value)
    # A copy, since LogicallyPartitioned hands out, and changes, its own attributes.
    metadata = copy.copy(value).to_nnx_metadata()  # pyright: ignore[reportAttributeAccessIssue]
    return kind(**metadata, linen_meta_type=type(value))


def _nested(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return nnx.Dict({name: _nested(inner) for name, inner in node.items()})


def _value(variable: nnx.Variable[Any]) -> Any:
    """What ``get_value`` returns; it takes 3 to 5 us, which is 50 us for a layer's parameters."""
    raw = variable.get_raw_value()
    plain = isinstance(raw, jax.Array) and not variable.get_metadata("on_get_value", None)
    return raw if plain else variable.get_value()


def _at(module: Any, path: tuple[str, ...]) -> nnx.Variable[Any]:
    for name in path:
        module = getattr(module, name)
    return module
