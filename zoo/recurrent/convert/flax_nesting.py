"""How the modules of both Flax APIs nest around a cell: RNN, Bidirectional and Sequential."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from zoo.recurrent.convert.activations import name_of
from zoo.recurrent.convert.errors import ConversionError, refuse, warn_reversed

_SIDES = ("forward_rnn", "backward_rnn")


def unnest_tree(tree: Mapping[Any, Any], path: str = "") -> list[list[tuple[str, Any]]]:
    """Returns layers x directions of (path, parameters of a cell).

    Args:
        tree: the parameters of a cell, or of RNN, Bidirectional or Sequential around cells.
        path: of the tree, for messages.

    Raises:
        ConversionError: a Sequential of something else, or a direction without its other.
    """
    layers = _sequence(tree)
    if layers is not None:
        return [layer for key, inner in layers for layer in unnest_tree(inner, _join(path, key))]
    if set(tree) & set(_SIDES):
        if set(tree) != set(_SIDES):
            raise ConversionError(
                f"Flax params at {path!r}: expected {list(_SIDES)}; found {sorted(tree)}."
            )
        sides = [unnest_tree(tree[side], _join(path, side)) for side in _SIDES]
        if any(len(side) != 1 or len(side[0]) != 1 for side in sides):
            raise refuse(
                "Bidirectional around several layers",
                "'stack' nests around 'bidirectional' here, so that every layer sees both "
                "directions.",
                "Convert the forward and the backward layers one by one.",
            )
        return [[side[0][0] for side in sides]]
    if set(tree) == {"cell"}:
        return unnest_tree(tree["cell"], _join(path, "cell"))
    return [[(path, tree)]]


def nest_tree(layers: Sequence[Sequence[Any]], stacked: bool, cell: str, layer: str) -> Any:
    """Returns the parameters of RNN, Bidirectional or Sequential around cells.

    Args:
        layers: layers x directions of parameters of cells.
        stacked: whether there is a Sequential, which one layer may have too.
        cell: the name of a cell inside its RNN; "" for a bare cell.
        layer: the name of a layer inside its Sequential with `{}` for the index, or "" where the
            layers lie under "layers" by number.
    """
    wrapped = [[{cell: side} if cell else side for side in sides] for sides in layers]
    trees = [
        dict(zip(_SIDES, sides, strict=True)) if len(sides) == 2 else sides[0] for sides in wrapped
    ]
    if not stacked:
        return trees[0]
    if layer:
        return {layer.format(index): tree for index, tree in enumerate(trees)}
    return {"layers": dict(enumerate(trees))}


def read_layers(
    trees: Sequence[Sequence[tuple[str, Any]]],
    modules: "Modules | None",
    read_cell: Callable[..., Any],
    time_axis: int | None,
) -> tuple[list[list[Any]], dict[str, Any]]:
    """Reads the cells of every layer, and returns what else `assemble` takes.

    Args:
        trees: layers x directions of (path, parameters of a cell).
        modules: what the modules say, if there are any.
        read_cell: makes a cell of a path, its parameters, and its module or None.
        time_axis: wins over what the modules say; None for that.
    """
    cells: list[list[Any]] = [[None] * len(sides) for sides in trees]
    settings: dict[str, Any] = {}
    if modules is not None:
        cells, settings = modules.cells_of([len(sides) for sides in trees]), modules.settings
    if time_axis is not None:
        settings = {**settings, "time_axis": time_axis}
    layers = [
        [read_cell(*tree, cell) for tree, cell in zip(sides, own, strict=True)]
        for sides, own in zip(trees, cells, strict=True)
    ]
    return layers, settings


class Modules:
    """What the modules themselves say, besides their parameters.

    Args:
        module: a cell, or an RNN, Bidirectional or Sequential of either Flax API around cells.

    Attributes:
        settings: what `assemble` takes: `time_axis`, 0, or -2 for inputs (*batch, T, D); `reverse`,
            whether the only direction runs backwards; `merge`, of two directions.

    Raises:
        ConversionError: the modules do something that has no exact mapping.
    """

    def __init__(self, module: Any) -> None:
        """Walks the modules."""
        layers = list(self._layers(module))
        self._cells = [cells for cells, _, _ in layers]
        self._alone = layers[0][0][0] is module
        shared = {settings for _, settings, _ in layers}
        if len(shared) > 1:
            raise refuse(
                f"a sequence of layers with different (time_axis, reverse, merge), {shared}",
                "'stack' repeats one layer.",
                "Convert the layers one by one.",
            )
        flips = [flips for _, _, flips in layers]
        if any(flips[:-1]):
            raise refuse(
                "a sequence of RNNs with reverse=True and keep_order=False",
                "each returns its outputs in reversed order, so the next one runs the other way.",
                "Convert the layers one by one and flip the outputs between them.",
            )
        if flips[-1]:
            warn_reversed("A Flax RNN with reverse=True and keep_order=False")
        time_axis, reverse, merge = shared.pop()
        self.settings = {"time_axis": time_axis, "reverse": reverse, "merge": merge}

    def cells_of(self, directions: Sequence[int]) -> list[list[Any]]:
        """Returns layers x directions of cells; a module that is itself a cell stands for all.

        Args:
            directions: of each layer of the parameters.

        Raises:
            ConversionError: the modules have other layers than the parameters.
        """
        if self._alone:
            return [self._cells[0] * count for count in directions]
        found = [len(cells) for cells in self._cells]
        if found != list(directions):
            raise ConversionError(
                f"Flax: the module has {len(found)} layers of {found[0]} directions; the "
                f"parameters have {len(directions)} of {directions[0]}."
            )
        return self._cells

    def _layers(self, module: Any) -> Iterator[tuple[list[Any], tuple[int, bool, Any], bool]]:
        if hasattr(module, "forward_rnn"):
            sides = [getattr(getattr(module, side), "cell", None) for side in _SIDES]
            if None in sides:
                raise refuse(
                    "Bidirectional around something else than two RNN modules",
                    "'bidirectional' repeats one leaf layer here.",
                    "Convert the forward and the backward modules one by one.",
                )
            yield sides, (0 if module.time_major else -2, False, _merge(module.merge_fn)), False
        elif hasattr(module, "cell"):
            settings = (0 if module.time_major else -2, bool(module.reverse), "concat")
            yield [module.cell], settings, bool(module.reverse and not module.keep_order)
        elif hasattr(module, "layers"):
            for layer in module.layers:
                yield from self._layers(layer)
        else:
            yield [module], (0, False, "concat"), False


def options_of(cell: Any) -> dict[str, Any]:
    """Returns the options of a Flax cell that a layer of this project has as well."""
    options = {
        name: name_of(getattr(cell, name))
        for name in ("gate_fn", "activation_fn")
        if hasattr(cell, name)
    }
    dtype = getattr(cell, "dtype", None)
    if dtype is not None and jnp.dtype(dtype) != jnp.dtype(cell.param_dtype):
        options["dtype"] = jnp.dtype(dtype).name
    return options


def _merge(merge_fn: Callable[..., Any]) -> str | Callable[..., Any]:
    known: dict[Any, str] = {jnp.add: "sum", jnp.multiply: "mul"}
    if merge_fn in known:
        return known[merge_fn]
    # The default of both Flax APIs has no public name: see what it does.
    merged = np.asarray(merge_fn(jnp.array([2.0]), jnp.array([5.0])))
    return "concat" if merged.tolist() == [2.0, 5.0] else merge_fn


def _sequence(tree: Mapping[Any, Any]) -> list[tuple[str, Any]] | None:
    if set(tree) == {"layers"}:
        tree = tree["layers"]
        return [(f"layers/{key}", tree[key]) for key in sorted(tree, key=int)]
    if tree and all(re.fullmatch(r"layers_\d+", str(key)) for key in tree):
        return [(key, tree[key]) for key in sorted(tree, key=lambda k: int(k[7:]))]
    return None


def _join(path: str, key: str) -> str:
    return f"{path}/{key}" if path else key
