"""Flax NNX: all its cells, in RNN, Bidirectional and Sequential or bare."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.recurrent.convert import carries
from zoo.recurrent.convert.cells import Cell, fuse_gates, split_gates
from zoo.recurrent.convert.errors import refuse
from zoo.recurrent.convert.flax_linen import fold_residual
from zoo.recurrent.convert.flax_nesting import (
    Modules,
    nest_tree,
    options_of,
    read_layers,
    unnest_tree,
)
from zoo.recurrent.convert.layout import assemble, disassemble
from zoo.recurrent.convert.plan import plan_of
from zoo.recurrent.convert.source import Source, as_jax, count_gates, flatten

_ORDER = {"gru": ("r", "z", "n"), "lstm": ("i", "f", "g", "o"), "elman": ("",)}
_KIND_OF = {1: "elman", 3: "gru", 4: "lstm"}
_KINDS = tuple(_ORDER)
# The input kernels of nnx.LSTMCell: "if" is no Python name.
_LSTM = {"i": "ii", "f": "if_", "g": "ig", "o": "io"}


def from_nnx(source: Any, *, time_axis: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts Flax NNX recurrent modules to a layer of this project.

    `nnx.GRUCell` has no bias inside its reset product, so that of the layer becomes 0.
    `residual=True` of a SimpleCell is folded into its recurrent kernel, as W + I.

    Args:
        source: a cell, or an `nnx.RNN`, an `nnx.Bidirectional` or an `nnx.Sequential` of these
            (which becomes a stack); or the pure dictionary of their parameters, which knows
            neither activations nor time axis.
        time_axis: of the layer; by default what the modules say: -2, or 0 if `time_major`.

    Returns:
        The config that `registry.build` takes, and the variables `{"params": ...}` of that layer.

    Raises:
        ConversionError: the parameters of another cell, or of other shapes.
        TypeError: neither modules nor a dictionary.

    Example:
        >>> cell = {"dense_i": {"kernel": np.ones((3, 6)), "bias": np.zeros(6)},
        ...         "dense_h": {"kernel": np.ones((2, 6))}}
        >>> cell = {k: {n: a.astype("float32") for n, a in v.items()} for k, v in cell.items()}
        >>> config, variables = from_nnx({"cell": cell}, time_axis=-2)
        >>> config
        {'name': 'scan_gru', 'features': 2, 'time_axis': -2}
    """
    modules, tree = None, source
    if not isinstance(source, Mapping):
        from flax import nnx

        if not isinstance(source, nnx.Module):
            raise TypeError(
                "from_nnx: expected an nnx module or the pure dictionary of its parameters; got a "
                f"{type(source).__name__}."
            )
        modules = Modules(source)
        tree = nnx.to_pure_dict(nnx.state(source, nnx.Param))
    trees = unnest_tree(tree)
    layers, settings = read_layers(trees, modules, _read_cell, time_axis)
    return assemble(layers, **settings)


def to_nnx(
    config: Mapping[str, Any],
    variables: Mapping[str, Any],
    *,
    cell: str = "cell",
    optimized: bool = False,
) -> dict[Any, Any]:
    """Converts a layer to the pure dictionary that `nnx.update(module, ...)` takes.

    Args:
        config: of the layer.
        variables: of the layer.
        cell: the name of a cell inside its `nnx.RNN`; "" gives a bare cell.
        optimized: for `nnx.OptimizedLSTMCell` instead of `nnx.LSTMCell`.

    Returns:
        The parameters of an `nnx.RNN`; for two directions of an `nnx.Bidirectional` of two; for a
        stack of an `nnx.Sequential` of the layers. A layer without biases gets biases of 0.

    Raises:
        ConversionError: NNX has no such cell, or config and variables disagree. A GRU with another
            `hn/bias` than 0 has none.

    Example:
        >>> cell = {"dense_i": {"kernel": np.ones((3, 2)), "bias": np.zeros(2)},
        ...         "dense_h": {"kernel": np.ones((2, 2))}}
        >>> cell = {k: {n: a.astype("float32") for n, a in v.items()} for k, v in cell.items()}
        >>> sorted(to_nnx(*from_nnx(cell))["cell"]["dense_i"])
        ['bias', 'kernel']
    """
    plan, layers = disassemble(config, variables, "Flax NNX", _KINDS)
    if layers[0][0].projection is not None:
        raise refuse("a projection to Flax NNX", "its LSTM cells have none.", "torch.nn.LSTM has.")
    trees = [[_write_cell(side, optimized) for side in sides] for sides in layers]
    return as_jax(nest_tree(trees, plan.stacked, cell, ""))


def carry_from_nnx(config: Mapping[str, Any], carry: Any) -> Any:
    """Converts the carry of an NNX module to the carry of the layer.

    They are the same but for their containers: h or (c, h), (forward, backward) for two
    directions, and here a tuple with one entry per layer for a stack.

    Args:
        config: of the layer.
        carry: of `nnx.RNN` or `nnx.Bidirectional` with `return_carry=True`, or a list of these.

    Returns:
        The carry of the layer.

    Raises:
        ConversionError: another nesting, or another shape, than the config says.

    Example:
        >>> carry_from_nnx({"name": "scan_gru", "features": 2}, np.ones((5, 2))).shape
        (5, 2)
    """
    states = carries.unnest(config, carry, carries.read_ours, "NNX carry")
    return carries.to_ours(config, states)


def carry_to_nnx(config: Mapping[str, Any], carry: Any) -> Any:
    """Converts the carry of a layer to the carry of NNX modules.

    Args:
        config: of the layer.
        carry: of the layer.

    Returns:
        What `initial_carry` takes; for a stack a tuple with one per layer.

    Raises:
        ConversionError: the carry is not one of the layer that `config` builds.

    Example:
        >>> carry_to_nnx({"name": "scan_gru", "features": 2}, np.ones((5, 2))).shape
        (5, 2)
    """
    if plan_of(config).kind not in _KINDS:
        raise refuse(f"a carry of {config['name']}", "Flax NNX has no such cell.", "")
    return carries.to_ours(config, carries.from_ours(config, carry))


def _read_cell(where: str, tree: Mapping[str, Any], module: Any) -> Cell:
    origin = f"NNX params at {where!r}"
    options = {} if module is None else options_of(module)
    flat = {key: np.asarray(leaf) for key, leaf in flatten(tree).items()}
    source = Source(flat, origin, "", "/")
    if "dense_h/kernel" not in source:
        return _read_lstm(source, options)
    features = (source.shape("dense_h/kernel") or (0,))[0]
    inputs = (source.shape("dense_i/kernel") or (0,))[0]
    gates = count_gates(source, "dense_h/kernel", 1, features)
    kind = _KIND_OF[gates]
    order = _ORDER[kind]
    fused = gates * features
    bias = source.take("dense_h/bias" if kind == "lstm" else "dense_i/bias", (fused,))
    cell = Cell(
        kind,
        split_gates(source.take("dense_i/kernel", (inputs, fused)), order),
        split_gates(source.take("dense_h/kernel", (features, fused)), order),
        split_gates(bias, order),
        np.zeros_like(bias[:features]) if kind == "gru" else None,
        options=options,
    )
    source.finish()
    return fold_residual(cell) if getattr(module, "residual", False) else cell


def _read_lstm(source: Source, options: Mapping[str, Any]) -> Cell:
    inputs, features = (*source.shape("ii/kernel"), 0, 0)[:2]
    cell = Cell(
        "lstm",
        {g: source.take(f"{name}/kernel", (inputs, features)) for g, name in _LSTM.items()},
        {g: source.take(f"h{g}/kernel", (features, features)) for g in _LSTM},
        {g: source.take(f"h{g}/bias", (features,)) for g in _LSTM},
        options=options,
    )
    source.finish()
    return cell


def _write_cell(cell: Cell, optimized: bool) -> dict[str, Any]:
    if cell.inner_bias is not None and np.any(cell.inner_bias):
        raise refuse(
            "scan_gru with a bias in its reset product to Flax NNX",
            f"nnx.GRUCell has none; expected hn/bias = 0, found up to "
            f"{np.max(np.abs(cell.inner_bias)):.3g}.",
            "torch, Keras with reset_after=True, equinox and Flax Linen have one.",
        )
    order = _ORDER[cell.kind]
    bias = cell.bias or {gate: np.zeros_like(kernel[0]) for gate, kernel in cell.kernels.items()}
    if cell.kind == "lstm" and not optimized:
        return {
            **{name: {"kernel": cell.kernels[gate]} for gate, name in _LSTM.items()},
            **{f"h{g}": {"kernel": cell.recurrent[g], "bias": bias[g]} for g in _LSTM},
        }
    dense_i = {"kernel": fuse_gates(cell.kernels, order)}
    dense_h = {"kernel": fuse_gates(cell.recurrent, order)}
    (dense_h if cell.kind == "lstm" else dense_i)["bias"] = fuse_gates(bias, order)
    return {"dense_i": dense_i, "dense_h": dense_h}
