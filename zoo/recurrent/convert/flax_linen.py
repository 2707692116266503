"""Flax Linen: variables of RNN, Bidirectional, Sequential of these, and of hand-made scans."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.core import meta

from zoo.recurrent.convert import carries
from zoo.recurrent.convert.cells import KINDS, Cell, read_cell
from zoo.recurrent.convert.errors import ConversionError, refuse
from zoo.recurrent.convert.flax_nesting import (
    Modules,
    nest_tree,
    options_of,
    read_layers,
    unnest_tree,
)
from zoo.recurrent.convert.layout import assemble, disassemble
from zoo.recurrent.convert.plan import plan_of
from zoo.recurrent.convert.source import Source, as_jax, flatten

_KINDS = ("gru", "lstm", "elman", "mgu")
_KIND_OF = {
    frozenset(side + gate for side in "ih" for gate in KINDS[kind].gates): kind for kind in _KINDS
}


def from_linen(
    variables: Mapping[str, Any],
    module: Any = None,
    *,
    path: str | Sequence[str] = "",
    backward: str | Sequence[str] | None = None,
    time_axis: int | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts variables of Flax Linen's recurrent modules to a layer of this project.

    GRUCell, LSTMCell, OptimizedLSTMCell, SimpleCell and MGUCell, in `nn.RNN`, `nn.Bidirectional`
    or an `nn.Sequential` of these (which becomes a stack), or bare, as a hand-made `nn.scan` has
    them. The cells' parameters keep their names and values: this moves them to where they belong.
    `residual=True` of a SimpleCell is folded into its recurrent kernel, as W + I.

    Args:
        variables: as `init` returns them, `{"params": ...}`, or the parameters alone.
        module: the module with these variables, or the scanned cell: it knows the activations, the
            time axis and the direction. Without it the cell's defaults and `time_axis=0` are taken.
        path: where the module, or the cell, lies in larger variables: `"encoder/GRUCell_0"`, or the
            paths of several, the lowest first, which become a stack. An `nn.RNN` made in a compact
            method has its parameters beside it, under the cell's name.
        backward: the same for the backward cells, where they are not beside "forward_rnn".
        time_axis: of the layer; by default what the module says: -2, or 0 if `time_major`.

    Returns:
        The config that `registry.build` takes, and the variables `{"params": ...}` of that layer.

    Raises:
        ConversionError: no such path, the tree of another cell, or parameters of other shapes.
        TypeError: `variables` is no mapping.

    Example:
        >>> import flax.linen as nn
        >>> rnn = nn.RNN(nn.GRUCell(4, activation_fn=nn.relu))
        >>> config, _ = from_linen(rnn.init(jax.random.key(0), np.ones((2, 5, 3))), rnn)
        >>> config
        {'name': 'scan_gru', 'features': 4, 'activation_fn': 'relu', 'time_axis': -2}
    """
    if not isinstance(variables, Mapping):
        raise TypeError(
            "from_linen: expected a mapping of variables, as init returns it; got a "
            f"{type(variables).__name__}."
        )
    params = meta.unbox(variables.get("params", variables))
    trees = _trees(params, path)
    if backward is not None:
        backs = _trees(params, backward)
        if len(backs) != len(trees) or any(len(layer) != 1 for layer in (*trees, *backs)):
            raise ConversionError(
                "from_linen: expected one backward cell for each forward one; found "
                f"{[len(layer) for layer in backs]} for {[len(layer) for layer in trees]}."
            )
        trees = [[*forward, *back] for forward, back in zip(trees, backs, strict=True)]
    modules = None if module is None else Modules(module)
    layers, settings = read_layers(trees, modules, _read_cell, time_axis)
    return assemble(layers, **settings)


def to_linen(
    config: Mapping[str, Any], variables: Mapping[str, Any], *, cell: str = "cell"
) -> dict[str, Any]:
    """Converts a layer to variables of Flax Linen's own recurrent modules.

    Args:
        config: of the layer.
        variables: of the layer.
        cell: the name of a cell inside its `nn.RNN`; "" gives the bare cell of a hand-made
            `nn.scan`.

    Returns:
        `{"params": ...}` of an `nn.RNN`; for two directions of an `nn.Bidirectional` of two; for a
        stack of an `nn.Sequential` of the layers. A layer without biases gets biases of 0.

    Raises:
        ConversionError: Flax has no such cell, or config and variables disagree.

    Example:
        >>> import flax.linen as nn
        >>> rnn = nn.RNN(nn.GRUCell(4))
        >>> variables = rnn.init(jax.random.key(0), np.ones((2, 5, 3)))
        >>> sorted(to_linen(*from_linen(variables))["params"]["cell"])
        ['hn', 'hr', 'hz', 'in', 'ir', 'iz']
    """
    plan, layers = disassemble(config, variables, "Flax Linen", _KINDS)
    if layers[0][0].projection is not None:
        raise refuse("a projection to Flax Linen", "LSTMCell has none.", "torch.nn.LSTM has one.")
    trees = [[_with_biases(side).params() for side in sides] for sides in layers]
    return {"params": as_jax(nest_tree(trees, plan.stacked, cell, "layers_{}"))}


def carry_from_linen(config: Mapping[str, Any], carry: Any) -> Any:
    """Converts the carry of a Flax Linen module to the carry of the layer.

    They are the same but for their containers: h or (c, h), (forward, backward) for two
    directions, and here a tuple with one entry per layer for a stack.

    Args:
        config: of the layer.
        carry: of `nn.RNN` or `nn.Bidirectional` with `return_carry=True`, or a list of these.

    Returns:
        The carry of the layer.

    Raises:
        ConversionError: another nesting, or another shape, than the config says.

    Example:
        >>> carry_from_linen({"name": "scan_gru", "features": 2}, np.ones((5, 2))).shape
        (5, 2)
    """
    states = carries.unnest(config, carry, carries.read_ours, "Flax carry")
    return carries.to_ours(config, states)


def carry_to_linen(config: Mapping[str, Any], carry: Any) -> Any:
    """Converts the carry of a layer to the carry of Flax Linen's own modules.

    Args:
        config: of the layer.
        carry: of the layer.

    Returns:
        What `initial_carry` takes; for a stack a tuple with one per layer.

    Raises:
        ConversionError: the carry is not one of the layer that `config` builds.

    Example:
        >>> carry_to_linen({"name": "scan_gru", "features": 2}, np.ones((5, 2))).shape
        (5, 2)
    """
    if plan_of(config).kind not in _KINDS:
        raise refuse(f"a carry of {config['name']}", "Flax Linen has no such cell.", "")
    return carries.to_ours(config, carries.from_ours(config, carry))


def fold_residual(cell: Cell) -> Cell:
    """Returns an Elman cell that computes what `cell` with a residual connection computes."""
    kernel = cell.recurrent[""]
    identity = np.eye(cell.features, dtype=kernel.dtype)
    return dataclasses.replace(cell, recurrent={"": kernel + identity})


def _trees(params: Mapping[str, Any], paths: str | Sequence[str]) -> list[list[tuple[str, Any]]]:
    paths = [paths] if isinstance(paths, str) else paths
    return [layer for path in paths for layer in unnest_tree(_at(params, path), path)]


def _at(params: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    tree: Any = params
    for key in filter(None, path.split("/")):
        if not isinstance(tree, Mapping) or key not in tree:
            raise ConversionError(
                f"Flax params: expected the path {path!r}; found "
                f"{sorted(tree) if isinstance(tree, Mapping) else 'an array'} before {key!r}."
            )
        tree = tree[key]
    return tree


def _read_cell(where: str, tree: Mapping[str, Any], module: Any) -> Cell:
    origin = f"Flax params at {where!r}"
    kind = _KIND_OF.get(frozenset(tree))
    if kind is None:
        raise ConversionError(
            f"{origin}: found {sorted(tree)}; expected the parameters of a cell, one of "
            f"{[sorted(names) for names in _KIND_OF]}, or of RNN, Bidirectional or Sequential "
            "around it. Name the place with `path`."
        )
    inner = KINDS[kind].inner
    options = {} if module is None else options_of(module)
    reset_gate = kind != "mgu" or "bias" in tree[f"h{inner}"]
    if not reset_gate:
        options["reset_gate"] = False
    flat = jax.tree.map(np.asarray, flatten(tree))
    cell = read_cell(
        Source(flat, origin, "", "/"),
        kind,
        options,
        use_bias=True,
        inner_bias=inner is not None and reset_gate,
    )
    return fold_residual(cell) if getattr(module, "residual", False) else cell


def _with_biases(cell: Cell) -> Cell:
    if cell.bias is not None:
        return cell
    zeros = {gate: np.zeros_like(kernel[0]) for gate, kernel in cell.kernels.items()}
    inner = KINDS[cell.kind].inner
    has_inner = inner is not None and cell.options.get("reset_gate", True)
    return dataclasses.replace(
        cell, bias=zeros, inner_bias=zeros[str(inner)] if has_inner else None
    )
