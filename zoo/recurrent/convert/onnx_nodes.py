"""ONNX: GRU, LSTM and RNN nodes of a file."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.recurrent.convert import carries
from zoo.recurrent.convert.activations import SYMMETRIC, from_onnx_names
from zoo.recurrent.convert.cells import Cell, fold_biases, split_gates, transposed
from zoo.recurrent.convert.errors import ConversionError, refuse
from zoo.recurrent.convert.layout import Layers, assemble
from zoo.recurrent.convert.onnx_graph import Node, read_nodes
from zoo.recurrent.convert.plan import plan_of
from zoo.recurrent.convert.source import Source, as_numpy

_ORDER = {"GRU": ("z", "r", "n"), "LSTM": ("i", "o", "f", "g"), "RNN": ("",)}
_FUNCTIONS = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "RNN": ["Tanh"]}
_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
_STATES = {"initial_h": "h", "initial_c": "c"}


def from_onnx(
    source: Any,
    nodes: str | Sequence[str] | None = None,
    *,
    initial_state: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts GRU, LSTM or RNN nodes of an ONNX file to a layer of this project.

    A GRU with `linear_before_reset=0` becomes `scan_simplified_gru` with the sign of its update
    gate changed. `layout=1` becomes `time_axis=1`. The layer returns (T, B, directions · H) where
    ONNX returns (T, directions, B, H). `sequence_lens` is `seq_lengths` of the layer's call. An
    input P, of peepholes, becomes `peepholes`, and `input_forget=1` becomes `coupled_gates`.

    Weights may be initialisers or be computed from them, dequantised for example. Nodes may lie in
    bodies of If, Loop and Scan, and in local functions. A constant initial state that is not zero
    becomes the layer's learned carry, if it is repeated for an open batch as well; one that is an
    input of the graph, or a part of one, is the `carry` of the call, see `carry_from_onnx`.

    Args:
        source: the path of a file, an `onnx.ModelProto`, or nodes as plain data, for which onnx is
            not needed: a mapping (or a list of them) with "op_type", "attributes" and "inputs",
            input name ("W", "R", "B", "initial_h", ...) → array.
        nodes: the name of the node, or the names of several nodes, the lowest first, which become a
            stack. Not needed where the file has one such node. A node without a name has that of
            its first output; one in a body is "if_node/then_branch/name"; where names are the
            same, "name:output". Without `nodes`, the error lists them.
        initial_state: False to leave initial states out; `initial_carry_from_onnx` returns the
            constant ones.

    Returns:
        The config that `registry.build` takes, and the variables `{"params": ...}` of that layer.

    Raises:
        ConversionError: no such node, or several of this name; weights that are no constants or
            have another shape; an initial state that the graph computes from its inputs; or
            something that no layer here does: `clip`, peepholes that are computed from inputs,
            activations that JAX does not have.

    Example:
        >>> node = {"op_type": "LSTM", "attributes": {"hidden_size": 2, "direction": "reverse"},
        ...         "inputs": {"W": np.ones((1, 8, 3), "float32"),
        ...                    "R": np.ones((1, 8, 2), "float32")}}
        >>> from_onnx(node)[0]
        {'name': 'scan_lstm', 'features': 2, 'use_bias': False, 'reverse': True}
    """
    chosen = read_nodes(source, nodes)
    layers: Layers = [_read_layer(node) for node in chosen]
    layouts = {node.attributes.get("layout", 0) for node in chosen}
    reverse = {node.attributes.get("direction", "forward") == "reverse" for node in chosen}
    if len(layouts) > 1 or len(reverse) > 1:
        raise refuse(
            f"nodes with layouts {layouts} and reverse {reverse}",
            "all layers of a stack share both.",
            "Convert the nodes one by one.",
        )
    if initial_state:
        layers = _with_initial(layers, chosen)
    return assemble(layers, time_axis=layouts.pop(), reverse=reverse.pop())


def initial_carry_from_onnx(source: Any, nodes: str | Sequence[str] | None = None) -> Any:
    """Returns the constant initial states of ONNX nodes as the carry of the layer.

    Args:
        source: as for `from_onnx`.
        nodes: as for `from_onnx`.

    Returns:
        The carry of the layer that `from_onnx` gives, for as many sequences as the states in the
        file have; None where no node has a constant initial state.

    Raises:
        ConversionError: as `from_onnx`.

    Example:
        >>> ones = np.ones((1, 5, 2), "float32")
        >>> inputs = {"W": ones[:, :2], "R": ones[:, :2], "initial_h": ones}
        >>> node = {"op_type": "RNN", "attributes": {"hidden_size": 2}, "inputs": inputs}
        >>> initial_carry_from_onnx(node).shape
        (5, 2)
    """
    chosen = read_nodes(source, nodes)
    config, _ = from_onnx(source, nodes, initial_state=False)
    states = [_initial_states(node) for node in chosen]
    if not any(key in node.inputs for node in chosen for key in _STATES):
        return None
    batch = max(np.shape(state.h)[0] for layer in states for state in layer)
    states = [
        [
            carries.State(*(a if a is None else np.broadcast_to(a, (batch, a.shape[1])) for a in s))
            for s in layer
        ]
        for layer in states
    ]
    return carries.to_ours(config, carries.check(plan_of(config), states, "ONNX initial states"))


def carry_from_onnx(
    config: Mapping[str, Any], initial_h: Any, initial_c: Any = None, *, layout: int = 0
) -> Any:
    """Converts what an ONNX node takes as `initial_h` and `initial_c` to the carry of the layer.

    It takes `Y_h` and `Y_c` just as well, which have the same shape.

    Args:
        config: of the layer.
        initial_h: (directions, B, H), or (B, directions, H) with `layout=1`; for a stack a
            sequence with one per layer.
        initial_c: the same, for an LSTM.
        layout: of the nodes.

    Returns:
        The carry of the layer.

    Raises:
        ConversionError: another shape than the config says.

    Example:
        >>> carry_from_onnx({"name": "scan_gru", "features": 2}, np.ones((1, 5, 2))).shape
        (5, 2)
    """
    plan = plan_of(config)
    fields = []
    for name, given in (("initial_h", initial_h), ("initial_c", initial_c)):
        if given is None:
            fields.append([[None] * plan.directions] * plan.num_layers)
            continue
        given = [as_numpy(a, f"ONNX {name}") for a in (given if plan.stacked else [given])]
        given = [np.swapaxes(a, 0, 1) if layout and a.ndim > 1 else a for a in given]
        if len(given) != plan.num_layers or any(
            a.ndim != 3 or a.shape[0] != plan.directions for a in given
        ):
            raise ConversionError(
                f"ONNX {name}: found shapes {[a.shape for a in given]} of (directions, B, H); "
                f"expected {plan.num_layers} layers of {plan.directions} directions."
            )
        fields.append([list(a) for a in given])
    states = [
        [carries.State(h, c) for h, c in zip(*layer, strict=True)]
        for layer in zip(*fields, strict=True)
    ]
    return carries.to_ours(config, carries.check(plan, states, "ONNX initial states"))


def carry_to_onnx(config: Mapping[str, Any], carry: Any, *, layout: int = 0) -> Any:
    """Converts the carry of a layer to `initial_h` and `initial_c` of ONNX nodes.

    Args:
        config: of the layer.
        carry: of the layer, with one batch axis.
        layout: of the nodes.

    Returns:
        initial_h of shape (directions, B, H), or (B, directions, H) with `layout=1`; for an LSTM
        the pair (initial_h, initial_c); for a stack a tuple with one per layer in their place.

    Raises:
        ConversionError: the carry is not one of the layer that `config` builds.

    Example:
        >>> carry_to_onnx({"name": "scan_gru", "features": 2}, np.ones((5, 2)), layout=1).shape
        (5, 1, 2)
    """
    plan = plan_of(config)
    if plan.kind == "mgu":
        raise refuse(f"a carry of {config['name']}", "ONNX has no such node.", "")
    fields = []
    for layer in carries.from_ours(config, carry):
        arrays = [
            np.stack(field, layout) for field in zip(*layer, strict=True) if field[0] is not None
        ]
        fields.append(arrays)
    found = [tuple(field) if plan.stacked else field[0] for field in zip(*fields, strict=True)]
    return tuple(found) if len(found) == 2 else found[0]


def _read_layer(node: Node) -> list[Cell]:
    where = f"ONNX {node.op_type} {node.name!r}"
    order = _ORDER[node.op_type]
    direction = node.attributes.get("direction", "forward")
    if direction not in _DIRECTIONS:
        raise ConversionError(
            f"{where}: direction {direction!r}; expected one of {sorted(_DIRECTIONS)}."
        )
    sides = _DIRECTIONS[direction]
    _refuse_variants(node, where)
    source = Source({k: v for k, v in node.inputs.items() if k not in _STATES}, where)
    shape = (*source.shape("R"), 0, 0, 0)
    features = node.attributes.get("hidden_size", shape[2])
    fused = len(order) * features
    inputs = (*source.shape("W"), 0, 0, 0)[2]
    kernels = source.take("W", (sides, fused, inputs))
    recurrent = source.take("R", (sides, fused, features))
    biases = source.take("B", (sides, 2 * fused)) if "B" in source else None
    peepholes = source.take("P", (sides, 3 * features)) if "P" in source else None
    source.finish()
    coupled = bool(node.attributes.get("input_forget", 0)) and node.op_type == "LSTM"
    if peepholes is not None and not np.any(peepholes):
        peepholes = None
    cells = []
    for side, (kind, options) in enumerate(_functions(node, where, sides)):
        folded: dict[str, Any] = {}
        if biases is not None:
            halves = np.split(biases[side], 2)
            folded = fold_biases(kind, *(split_gates(half, order) for half in halves))
        cell = Cell(
            kind,
            transposed(split_gates(kernels[side], order, 0)),
            transposed(split_gates(recurrent[side], order, 0)),
            options=options,
            **folded,
        )
        if peepholes is not None:
            vectors = split_gates(peepholes[side], "iof")
            options = {**cell.options, "peepholes": True}
            cell = dataclasses.replace(cell, peepholes=vectors, options=options)
        if coupled:
            cell = _coupled(cell)
        cells.append(cell.with_negated("z") if kind == "simplified_gru" else cell)
    return cells


def _refuse_variants(node: Node, where: str) -> None:
    if "clip" in node.attributes:
        raise refuse(
            f"{where} with clip={node.attributes['clip']}",
            "no layer here clips what goes into its gates.",
            "Export without it.",
        )
    if "P" in (*node.given, *node.unknown):
        raise refuse(
            f"{where} with peepholes (input P) that are no constant",
            "peepholes are parameters here.",
            "Make them an initialiser.",
        )


def _coupled(cell: Cell) -> Cell:
    """The cell without its forget gate, which is 1 - i."""
    kept = {
        name: {gate: array for gate, array in getattr(cell, name).items() if gate != "f"}
        for name in ("kernels", "recurrent", "bias", "peepholes")
        if getattr(cell, name) is not None
    }
    return dataclasses.replace(cell, **kept, options={**cell.options, "coupled_gates": True})


def _functions(node: Node, where: str, sides: int) -> list[tuple[str, dict[str, Any]]]:
    """Returns kind and options of the cell of each direction."""
    default = _FUNCTIONS[node.op_type]
    names = list(node.attributes.get("activations", default * sides))
    if len(names) != len(default) * sides:
        raise ConversionError(
            f"{where}: activations {names}; expected {len(default)} for each of {sides} directions."
        )
    ours = from_onnx_names(
        names,
        node.attributes.get("activation_alpha", []),
        node.attributes.get("activation_beta", []),
        where,
    )
    found = []
    for side in range(sides):
        gate, *rest = ours[side * len(default) : (side + 1) * len(default)]
        if node.op_type == "RNN":
            found.append(("elman", {"activation_fn": gate}))
            continue
        if len(set(rest)) > 1:
            raise refuse(
                f"{where} with the activations g={rest[0]} and h={rest[1]}",
                "scan_lstm has one `activation_fn` for both.",
                "Expected equal ones.",
            )
        kind = node.op_type.lower()
        if kind == "gru" and not node.attributes.get("linear_before_reset", 0):
            kind = "simplified_gru"
            if gate not in SYMMETRIC:
                raise refuse(
                    f"{where} with linear_before_reset=0 and the gate {gate}",
                    "its update gate z is 1 - z here, which is the gate of -x for "
                    f"{' and '.join(SYMMETRIC)} only.",
                    "linear_before_reset=1 takes any gate.",
                )
        found.append((kind, {"gate_fn": gate, "activation_fn": rest[0]}))
    return found


def _initial_states(node: Node) -> list[carries.State]:
    """Returns the constant initial state of each direction, (B, H); zeros where there is none."""
    for key, reason in node.unknown.items():
        raise ConversionError(
            f"ONNX {node.op_type} {node.name!r}: expected {key} to be a constant or an input of "
            f"the graph; {key} {reason}. To convert the weights alone, give initial_state=False, "
            "and hand the layer its carry in the call."
        )
    recurrent = node.inputs["R"]
    sides, features = recurrent.shape[0], recurrent.shape[2]
    layout = node.attributes.get("layout", 0)
    given = {
        field: np.swapaxes(node.inputs[key], 0, 1) if layout else node.inputs[key]
        for key, field in _STATES.items()
        if key in node.inputs
    }
    zeros = np.zeros((sides, 1, features), recurrent.dtype)
    fields = {"h": given.get("h", zeros)}
    if node.op_type == "LSTM":
        fields["c"] = given.get("c", zeros)
    for name, array in fields.items():
        if array.ndim != 3 or (array.shape[0], array.shape[2]) != (sides, features):
            raise ConversionError(
                f"ONNX {node.op_type} {node.name!r}: initial_{name} has shape {array.shape} in the "
                f"order (directions, B, H); expected ({sides}, B, {features})."
            )
    return [carries.State(*(array[side] for array in fields.values())) for side in range(sides)]


def _with_initial(layers: Layers, nodes: Sequence[Node]) -> Layers:
    states = [_initial_states(node) for node in nodes]
    if not any(np.any(a) for layer in states for state in layer for a in state if a is not None):
        return layers
    given = [f"{key} of {node.name!r}" for node in nodes for key in node.given]
    if given:
        raise refuse(
            f"a constant initial state beside {' and '.join(given)}, from the inputs of the graph,",
            "a layer has all of its carry from the call, or learned all of it.",
            "Convert with initial_state=False; initial_carry_from_onnx returns the constant "
            "part, with zeros elsewhere.",
        )
    for node, layer in zip(nodes, states, strict=True):
        for state in layer:
            if any(np.any(a != a[:1]) for a in state if a is not None):
                raise refuse(
                    f"ONNX {node.op_type} {node.name!r} with another constant initial state for "
                    "each sequence of the batch",
                    "a layer's learned carry is one for all sequences.",
                    "Convert with initial_state=False, and give the layer the carry that "
                    "initial_carry_from_onnx returns.",
                )
    return [
        [
            dataclasses.replace(
                cell, initial={k: a[0] for k, a in state._asdict().items() if a is not None}
            )
            for cell, state in zip(cells, layer, strict=True)
        ]
        for cells, layer in zip(layers, states, strict=True)
    ]
