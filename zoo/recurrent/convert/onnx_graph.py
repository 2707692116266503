"""The recurrent nodes of an ONNX graph with their constant inputs, as plain data."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.recurrent.convert.errors import ConversionError
from zoo.recurrent.convert.onnx_scopes import Found, Scope, find_nodes, inlined, is_standard
from zoo.recurrent.convert.onnx_values import Constants, Missing
from zoo.recurrent.convert.source import as_numpy

_INPUTS = {
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
}
# What the caller of the graph gives at every call, and what therefore is no weight.
_AT_CALL = ("X", "sequence_lens")


@dataclasses.dataclass(frozen=True)
class Node:
    """One recurrent node.

    Attributes:
        name: of the node; its first output where it has no name. In bodies of If, Loop and Scan
            it begins with the node and the attribute; where two are the same it ends in the output.
        op_type: "GRU", "LSTM" or "RNN".
        attributes: name → Python value.
        inputs: name in the operator's definition → array, constant inputs only.
        given: the names of inputs that are inputs of the graph, or parts of them.
        unknown: the name of every other input → why it has no value.
    """

    name: str
    op_type: str
    attributes: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    given: Sequence[str] = ()
    unknown: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_nodes(source: Any, names: str | Sequence[str] | None) -> list[Node]:
    """Returns the named nodes, or the only one.

    Args:
        source: the path of an ONNX file, an `onnx.ModelProto`, or one or more mappings with
            "op_type", "attributes" and "inputs", and "name" where there are several.
        names: as for `from_onnx`.

    Raises:
        ConversionError: no such node, or several and no name; a weight that is no constant.
        TypeError: `source` is none of these.
    """
    if isinstance(source, Mapping):
        found = [_plain(source, 0)]
    elif isinstance(source, list | tuple):
        found = [_plain(node, index) for index, node in enumerate(source)]
    elif isinstance(source, str | os.PathLike) or hasattr(source, "graph"):
        return _from_graph(source, names)
    else:
        raise TypeError(
            "from_onnx: expected the path of an ONNX file, an onnx.ModelProto or nodes as "
            f"mappings; got a {type(source).__name__}."
        )
    return [each.node for each in _choose([Found(node.name, (), node) for node in found], names)]


def _plain(node: Mapping[str, Any], index: int) -> Node:
    op_type = node.get("op_type")
    if op_type not in _INPUTS or "inputs" not in node:
        raise ConversionError(
            f"ONNX node: expected 'op_type' (one of {sorted(_INPUTS)}) and 'inputs'; got "
            f"{sorted(node)} with op_type={op_type!r}."
        )
    inputs = {
        key: as_numpy(value, f"ONNX {op_type}: input {key!r}")
        for key, value in node["inputs"].items()
        if key not in _AT_CALL
    }
    return Node(node.get("name", str(index)), op_type, node.get("attributes", {}), inputs)


def _choose(
    found: Sequence[Found], names: str | Sequence[str] | None, others: Sequence[str] = ()
) -> list[Found]:
    labels = [each.label for each in found]
    if names is None:
        if len(found) != 1:
            raise ConversionError(
                f"ONNX graph: expected one GRU, LSTM or RNN node; found {labels or 'none'}. "
                + ("Name one, or several that form a stack, with `nodes`." if found else "")
                + (_others(others) if not found else "")
            )
        return list(found)
    chosen = [names] if isinstance(names, str) else list(names)
    picked = []
    for name in chosen:
        fitting = [each for each in found if each.label == name]
        fitting = fitting or [each for each in found if name in each.aliases]
        if len(fitting) > 1:
            raise ConversionError(
                f"ONNX graph: {len(fitting)} nodes are called {name!r}; expected one. The "
                f"recurrent nodes are {labels}."
                + (" Give each a name of its own." if labels.count(name) > 1 else "")
            )
        picked += fitting
    if len(picked) != len(chosen) or not chosen:
        raise ConversionError(
            f"ONNX graph: expected nodes {chosen}; the recurrent nodes are {labels}."
            + (_others(others) if not found else "")
        )
    return picked


def _others(others: Sequence[str]) -> str:
    if not others:
        return ""
    return (
        f" There are operators of other domains, {sorted(set(others))}, which have no exact "
        "mapping. Convert the model from before it was quantised or optimised for one runtime."
    )


def _from_graph(source: Any, names: str | Sequence[str] | None) -> list[Node]:
    model = _load(source) if isinstance(source, str | os.PathLike) else source
    model, renamed = inlined(model)
    root = Scope(model.graph)
    others = [
        f"{node.domain}::{node.op_type}"
        for scope in root.walk()
        for node in scope.nodes
        if not is_standard(node) and any(op in node.op_type.upper() for op in _INPUTS)
    ]
    chosen = _choose(find_nodes(root, _INPUTS, renamed), names, others)
    constants = Constants(model, root)
    return [_read(constants, each) for each in chosen]


def _load(path: str | os.PathLike[str]) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(os.fspath(path))
    except DecodeError as error:
        raise ConversionError(
            f"{os.path.basename(path)}: expected an ONNX file; its contents are something else "
            f"({error}). Likely cause: another format, or a download that was cut short."
        ) from error


def _read(constants: Constants, found: Found) -> Node:
    from onnx import helper

    node = found.node
    attributes = {a.name: _text(helper.get_attribute_value(a)) for a in node.attribute}
    inputs: dict[str, np.ndarray] = {}
    given, unknown = [], {}
    for key, tensor in zip(_INPUTS[node.op_type], node.input, strict=False):
        if not tensor or key in _AT_CALL:
            continue
        value = constants.find(found.scope, tensor)
        if not isinstance(value, Missing):
            inputs[key] = value
        elif key in ("W", "R", "B"):
            raise ConversionError(
                f"ONNX {node.op_type} {found.label!r}: expected a constant as the weight {key}; "
                f"the weight {key} (tensor {tensor!r}) {value.reason}."
            )
        elif value.given:
            given.append(key)
        else:
            unknown[key] = f"(tensor {tensor!r}) {value.reason}"
    return Node(found.label, node.op_type, attributes, inputs, given, unknown)


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return [_text(each) for each in value] if isinstance(value, list) else value
