"""Keras 3: GRU, LSTM, SimpleRNN, ConvLSTM, Bidirectional, RNN of cells, and sequences of them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from zoo.recurrent.convert import carries, keras_conv
from zoo.recurrent.convert.activations import require_keras
from zoo.recurrent.convert.cells import Cell, fold_biases, fuse_gates, split_gates
from zoo.recurrent.convert.errors import ConversionError, refuse
from zoo.recurrent.convert.keras_config import (
    MERGES,
    described,
    direction,
    plan_layers,
    require_symmetric,
)
from zoo.recurrent.convert.layout import assemble, disassemble
from zoo.recurrent.convert.plan import plan_of
from zoo.recurrent.convert.source import Source, as_numpy

_ORDER = {
    "gru": ("z", "r", "n"),
    "simplified_gru": ("z", "r", "n"),
    "lstm": ("i", "f", "g", "o"),
    "elman": ("",),
}
_KINDS = tuple(_ORDER)


def from_keras(source: Any, config: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts Keras 3 recurrent layers to a layer of this project.

    GRU (`reset_after` True and False), LSTM, SimpleRNN, `RNN` of their cells or of
    `StackedRNNCells`, ConvLSTM1D to 3D (channels last), and `Bidirectional` around any of them. A
    list of layers, or a `Sequential` or Functional model that calls them one after the other,
    becomes a stack; `Dropout` layers of one rate between all of them become its `dropout_rate`.
    Keras is batch-first, so `time_axis` is
    1. A dtype policy that computes in half precision becomes `dtype`.

    A GRU with `reset_after=False` becomes `scan_simplified_gru` with the sign of its update gate
    changed, because there that gate keeps the old state and here it takes the new one. Dropout,
    regularisers, `stateful`, `return_sequences` and `return_state` say nothing about the weights:
    the layer always returns all outputs and the carry.

    Args:
        source: a built layer, a list of built layers, or, where `config` is given, what
            `get_weights()` returns: a list of arrays, for which Keras is not needed.
        config: what `keras.saving.serialize_keras_object(layer)` returns, a dictionary with
            "class_name" and "config" (or a list of them), as the `config.json` in a `.keras` file.
            One of Keras 2 is told by its "keras_version", "implementation" or "time_major".

    Returns:
        The config that `registry.build` takes, and the variables `{"params": ...}` of that layer.

    Raises:
        ConversionError: another kind of layer, one with a `call` of its own, an activation that JAX
            does not have, or that Keras 2 computed otherwise; a layer that is not built, or arrays
            of another number or shape than the config says.

    Example:
        >>> weights = [np.ones((3, 8)), np.ones((2, 8)), np.zeros(8)]
        >>> lstm = {"class_name": "LSTM", "config": {"units": 2, "use_bias": True}}
        >>> config, variables = from_keras([w.astype("float32") for w in weights], lstm)
        >>> config
        {'name': 'scan_lstm', 'features': 2, 'time_axis': 1}
    """
    if config is None:
        parts = source if isinstance(source, list | tuple) else [source]
        config = [described(part) for part in parts]
        # The states of a stateful layer count among its weights, under this name; the state of a
        # generator of random numbers, which layers with dropout have, is no floating-point array.
        found = [w for p in parts for w in p.weights if w.name != "rnn_state"]
        weights = [w.value for w in found if "seed_generator_state" not in w.name]
    else:
        config = config if isinstance(config, list | tuple) else [config]
        weights = list(source)

    plan, dropout = plan_layers(config)
    names = [
        f"layers.{index}.{side}.{name}"
        for index, layer in enumerate(plan)
        for side, cell in layer.items()
        for name in ("kernel", "recurrent_kernel", "bias")[: 2 + cell["use_bias"]]
    ]
    if len(names) != len(weights):
        raise ConversionError(
            f"Keras weights: expected {len(names)} arrays, {names}; found {len(weights)} with "
            f"shapes {[np.shape(w) for w in weights]}. "
            + ("Call the layer once, so that it is built." if not weights else "")
        )
    reader = Source(dict(zip(names, weights, strict=True)), "Keras weights")
    if any(cell["convolution"] for layer in plan for cell in layer.values()):
        return keras_conv.read(reader, plan)
    layers = [
        [_read_cell(reader, f"layers.{index}.{side}", cell) for side, cell in layer.items()]
        for index, layer in enumerate(plan)
    ]
    reader.finish()
    merges = {cell["merge"] for layer in plan for cell in layer.values()}
    if len(merges) > 1:
        raise refuse(
            f"a sequence of layers merged by {sorted(merges)}",
            "'stack' repeats one layer.",
            "Convert the layers one by one.",
        )
    return assemble(
        layers,
        time_axis=1,
        reverse=direction(plan),
        merge=merges.pop(),
        dropout_rate=dropout,
    )


def to_keras(config: Mapping[str, Any], variables: Mapping[str, Any]) -> list[np.ndarray]:
    """Converts a layer to the arrays that `set_weights` of the Keras layer takes.

    Args:
        config: of the layer.
        variables: of the layer.

    Returns:
        The arrays of all layers and directions in the order of Keras: for one layer what its
        `set_weights` takes, for a stack what `set_weights` of a `Sequential` of the layers takes.
        `scan_gru` fits `reset_after=True` and `scan_simplified_gru` fits `reset_after=False`.

    Raises:
        ConversionError: Keras has no such layer, or config and variables disagree.

    Example:
        >>> weights = [np.ones((3, 8), "float32"), np.ones((2, 8), "float32")]
        >>> lstm = {"class_name": "LSTM", "config": {"units": 2, "use_bias": False}}
        >>> [w.shape for w in to_keras(*from_keras(weights, lstm))]
        [(3, 8), (2, 8)]
    """
    plan, layers = disassemble(config, variables, "Keras", _KINDS)
    if callable(plan.merge):
        raise refuse(
            f"merge={plan.merge!r} to Keras",
            f"Bidirectional merges by name, as {list(MERGES)}.",
            "Flax merges by any function.",
        )
    options = layers[0][0].options
    for option in set(options) & {"activation_fn", "gate_fn"}:
        require_keras(options[option], f"{option} to Keras")
    require_symmetric(plan.kind, options)
    if layers[0][0].projection is not None:
        raise refuse(
            "a projection to Keras",
            "keras.layers.LSTM has none.",
            "torch.nn.LSTM has one, as `proj_size`.",
        )
    return [array for layer in layers for cell in layer for array in _write_cell(cell)]


def carry_from_keras(config: Mapping[str, Any], states: Any) -> Any:
    """Converts Keras states to the carry of the layer.

    Args:
        config: of the layer.
        states: as Keras returns them after the outputs: h, or [h, c] for an LSTM; for
            `Bidirectional` the forward ones, then the backward ones; for several layers one after
            the other. Lists inside lists are taken apart.

    Returns:
        The carry of the layer.

    Raises:
        ConversionError: another number of states, or another shape, than the config says.

    Example:
        >>> c, h = carry_from_keras({"name": "scan_lstm", "features": 2}, [np.zeros((5, 2)),
        ...                                                                np.ones((5, 2))])
        >>> float(c.sum())
        10.0
    """
    plan = plan_of(config)
    flat = list(_flat(states))
    width = 2 if plan.kind == "lstm" else 1
    if len(flat) != plan.num_layers * plan.directions * width:
        raise ConversionError(
            f"Keras states: expected {plan.num_layers} layers x {plan.directions} directions x "
            f"{width} arrays; found {len(flat)}."
        )
    arrays = iter(as_numpy(state, "Keras states") for state in flat)
    found = [
        [carries.State(*(next(arrays) for _ in range(width))) for _ in range(plan.directions)]
        for _ in range(plan.num_layers)
    ]
    return carries.to_ours(config, carries.check(plan, found, "Keras states"))


def carry_to_keras(config: Mapping[str, Any], carry: Any) -> list[Any]:
    """Converts the carry of a layer to what `initial_state` of the Keras layer takes.

    Args:
        config: of the layer.
        carry: of the layer.

    Returns:
        A list of arrays: h, or h and c for an LSTM, forward before backward. For a stack one such
        list per layer.

    Raises:
        ConversionError: the carry is not one of the layer that `config` builds.

    Example:
        >>> carry = (np.zeros((5, 2)), np.ones((5, 2)))
        >>> h, c = carry_to_keras({"name": "scan_lstm", "features": 2}, carry)
        >>> float(h.sum())
        10.0
    """
    plan = plan_of(config)
    if plan.kind not in _KINDS:
        raise refuse(f"a carry of {config['name']}", "Keras has no such layer.", "")
    layers = [
        [array for state in layer for array in state if array is not None]
        for layer in carries.from_ours(config, carry)
    ]
    return layers if plan.stacked else layers[0]


def _read_cell(source: Source, path: str, cell: Mapping[str, Any]) -> Cell:
    kind, features = cell["kind"], cell["units"]
    order = _ORDER[kind]
    fused = len(order) * features
    inputs = (source.shape(f"{path}.kernel") or (0,))[0]
    kernels = split_gates(source.take(f"{path}.kernel", (inputs, fused)), order)
    recurrent = split_gates(source.take(f"{path}.recurrent_kernel", (features, fused)), order)
    biases: dict[str, Any] = {}
    if cell["use_bias"] and kind == "gru":
        rows = source.take(f"{path}.bias", (2, fused))
        biases = fold_biases(kind, *(split_gates(row, order) for row in rows))
    elif cell["use_bias"]:
        biases = {"bias": split_gates(source.take(f"{path}.bias", (fused,)), order)}
    found = Cell(kind, kernels, recurrent, options=cell["options"], **biases)
    return found.with_negated("z") if kind == "simplified_gru" else found


def _write_cell(cell: Cell) -> list[np.ndarray]:
    if cell.kind == "simplified_gru":
        cell = cell.with_negated("z")
    order = _ORDER[cell.kind]
    weights = [fuse_gates(cell.kernels, order), fuse_gates(cell.recurrent, order)]
    biases = cell.biases()
    if biases is not None and cell.kind == "gru":
        weights.append(np.stack([fuse_gates(side, order) for side in biases]))
    elif cell.bias is not None:
        weights.append(fuse_gates(cell.bias, order))
    return weights


def _flat(states: Any) -> Iterator[Any]:
    if isinstance(states, list | tuple):
        for state in states:
            yield from _flat(state)
    else:
        yield states
