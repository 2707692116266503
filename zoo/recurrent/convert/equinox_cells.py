"""equinox: GRUCell and LSTMCell."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from zoo.recurrent.convert import carries
from zoo.recurrent.convert.cells import Cell, fuse_gates, split_gates, transposed
from zoo.recurrent.convert.errors import ConversionError, refuse
from zoo.recurrent.convert.layout import assemble, disassemble, require_functions
from zoo.recurrent.convert.plan import plan_of
from zoo.recurrent.convert.source import Source, as_jax, count_gates

_ORDER = {"gru": ("r", "z", "n"), "lstm": ("i", "f", "g", "o")}
_KINDS = tuple(_ORDER)
_FIELDS = ("weight_ih", "weight_hh", "bias", "bias_n")


def from_equinox(
    cells: Any, *, backward: Any = None, time_axis: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts equinox cells to a layer of this project.

    Args:
        cells: an `eqx.nn.GRUCell` or `LSTMCell`, or a list of them, the lowest first, which becomes
            a stack. A mapping of a cell's arrays by field name stands for the cell, and needs no
            equinox.
        backward: the same for the cells that run backwards, where there are two directions.
        time_axis: of the layer.

    Returns:
        The config that `registry.build` takes, and the variables `{"params": ...}` of that layer.

    Raises:
        ConversionError: an array is missing, left over, or of another shape than the others imply.
        TypeError: something else than such cells.

    Example:
        >>> weights = np.ones((8, 5), "float32")
        >>> cell = {"weight_ih": weights[:, :3], "weight_hh": weights[:, 3:]}
        >>> from_equinox([cell])[0]
        {'name': 'scan_lstm', 'features': 2, 'use_bias': False}
    """
    sides = [cells] + ([backward] if backward is not None else [])
    sides = [side if isinstance(side, list | tuple) else [side] for side in sides]
    if len({len(side) for side in sides}) > 1:
        raise ConversionError(
            "from_equinox: expected as many backward cells as forward ones; got "
            f"{[len(side) for side in sides]}."
        )
    layers = [[_read_cell(cell) for cell in layer] for layer in zip(*sides, strict=True)]
    return assemble(layers, time_axis=time_axis)


def to_equinox(config: Mapping[str, Any], variables: Mapping[str, Any]) -> Any:
    """Converts a layer to equinox cells; equinox is imported to make them.

    Args:
        config: of the layer.
        variables: of the layer.

    Returns:
        An `eqx.nn.GRUCell` or `LSTMCell`; a list of them for a stack; for two directions, a pair
        (forward, backward) in its place.

    Raises:
        ConversionError: equinox has no such cell, or config and variables disagree.
        ImportError: equinox is not installed.

    Example:
        >>> weights = np.ones((8, 5), "float32")
        >>> cell = {"weight_ih": weights[:, :3], "weight_hh": weights[:, 3:]}
        >>> to_equinox(*from_equinox(cell)).hidden_size  # doctest: +SKIP
        2
    """
    plan, layers = disassemble(config, variables, "equinox", _KINDS)
    require_functions(layers, "equinox", ("tanh",))
    if layers[0][0].projection is not None:
        raise refuse("a projection to equinox", "its LSTMCell has none.", "torch.nn.LSTM has one.")
    found = [tuple(map(_write_cell, layer)) for layer in layers]
    found = found if plan.directions == 2 else [cells[0] for cells in found]
    return found if plan.stacked else found[0]


def carry_from_equinox(config: Mapping[str, Any], state: Any) -> Any:
    """Converts the state of equinox cells to the carry of the layer.

    Args:
        config: of the layer.
        state: h, or the pair (h, c) of an LSTMCell; for a stack a list with one per layer, for two
            directions a pair (forward, backward).

    Returns:
        The carry of the layer.

    Raises:
        ConversionError: another nesting, or another shape, than the config says.

    Example:
        >>> state = (np.zeros(2), np.ones(2))
        >>> c, h = carry_from_equinox({"name": "scan_lstm", "features": 2}, state)
        >>> float(c.sum())
        2.0
    """
    states = carries.unnest(config, state, carries.read_pair, "equinox state")
    return carries.to_ours(config, states)


def carry_to_equinox(config: Mapping[str, Any], carry: Any) -> Any:
    """Converts the carry of a layer to the state of equinox cells.

    Args:
        config: of the layer.
        carry: of the layer.

    Returns:
        h, or the pair (h, c) of an LSTMCell; nested as the carry is.

    Raises:
        ConversionError: the carry is not one of the layer that `config` builds.

    Example:
        >>> h, c = carry_to_equinox({"name": "scan_lstm", "features": 2}, (np.zeros(2), np.ones(2)))
        >>> float(h.sum())
        2.0
    """
    if plan_of(config).kind not in _KINDS:
        raise refuse(f"a carry of {config['name']}", "equinox has no such cell.", "")
    return as_jax(carries.nest(config, carries.from_ours(config, carry), carries.write_pair))


def arrays_of(cell: Cell) -> dict[str, np.ndarray]:
    """Returns the arrays of the equinox cell by field name; without the biases that it has not."""
    order = _ORDER[cell.kind]
    arrays = {
        "weight_ih": fuse_gates(transposed(cell.kernels), order, 0),
        "weight_hh": fuse_gates(transposed(cell.recurrent), order, 0),
    }
    if cell.bias is not None:
        arrays["bias"] = fuse_gates(cell.bias, order)
    if cell.inner_bias is not None:
        arrays["bias_n"] = cell.inner_bias
    return arrays


def _read_cell(cell: Any) -> Cell:
    name = "equinox cell"
    if not isinstance(cell, Mapping):
        name = f"equinox {type(cell).__name__}"
        arrays = {field: getattr(cell, field, None) for field in _FIELDS}
        cell = {field: array for field, array in arrays.items() if array is not None}
        if not {"weight_ih", "weight_hh"} <= set(cell):
            raise TypeError(
                f"from_equinox: expected an eqx.nn.GRUCell or LSTMCell; got {name.split()[1]}."
            )
    source = Source(cell, name)
    features = (*source.shape("weight_hh"), 0, 0)[1]
    kind = {3: "gru", 4: "lstm"}.get(count_gates(source, "weight_hh", 0, features), "")
    if not kind:
        source.mismatch("weight_hh", f"{(3 * features, features)} or {(4 * features, features)}")
    order = _ORDER[kind]
    fused = len(order) * features
    inputs = (*source.shape("weight_ih"), 0, 0)[1]
    blocks = {
        key: split_gates(source.take(key, (fused, width)), order, 0)
        for key, width in (("weight_ih", inputs), ("weight_hh", features))
    }
    biased = "bias" in source or "bias_n" in source
    found = Cell(
        kind,
        transposed(blocks["weight_ih"]),
        transposed(blocks["weight_hh"]),
        split_gates(source.take("bias", (fused,)), order) if biased else None,
        source.take("bias_n", (features,)) if biased and kind == "gru" else None,
    )
    source.finish()
    return found


def _write_cell(cell: Cell) -> Any:
    import equinox
    import jax

    make = {"gru": equinox.nn.GRUCell, "lstm": equinox.nn.LSTMCell}[cell.kind]
    arrays = as_jax(arrays_of(cell))
    dtype = jnp.result_type(*arrays.values())
    blank = make(
        cell.inputs, cell.features, cell.bias is not None, dtype, key=jax.random.PRNGKey(0)
    )
    fields = list(arrays)
    return equinox.tree_at(
        lambda tree: [getattr(tree, field) for field in fields], blank, list(arrays.values())
    )
