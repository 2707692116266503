"""The recurrent nodes of an ONNX graph with their constant inputs, as plain data."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.recurrent.convert.errors import ConversionError
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
        name: of the node; its first output where it has no name.
        op_type: "GRU", "LSTM" or "RNN".
        attributes: name → Python value.
        inputs: name in the operator's definition → array, constant inputs only.
        computed: the names of the other inputs, which depend on the inputs of the graph.
    """

    name: str
    op_type: str
    attributes: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    computed: Sequence[str] = ()


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
    by_name = {node.name: node for node in found}
    return [by_name[name] for name in _choose(list(by_name), names)]


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


def _choose(found: Sequence[str], names: str | Sequence[str] | None) -> list[str]:
    if names is None:
        if len(found) != 1:
            raise ConversionError(
                f"ONNX graph: expected one GRU, LSTM or RNN node; found {list(found) or 'none'}. "
                + ("Name one, or several that form a stack, with `nodes`." if found else "")
            )
        return list(found)
    chosen = [names] if isinstance(names, str) else list(names)
    missing = [name for name in chosen if name not in found]
    if missing or not chosen:
        raise ConversionError(
            f"ONNX graph: expected nodes {chosen}; the recurrent nodes are {list(found)}."
        )
    return chosen


def _from_graph(source: Any, names: str | Sequence[str] | None) -> list[Node]:
    model = _load(source) if isinstance(source, str | os.PathLike) else source
    recurrent = {
        node.name or node.output[0]: node for node in model.graph.node if node.op_type in _INPUTS
    }
    return [_read(model, name, recurrent[name]) for name in _choose(list(recurrent), names)]


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


def _read(model: Any, name: str, node: Any) -> Node:
    from onnx import helper

    attributes = {a.name: _text(helper.get_attribute_value(a)) for a in node.attribute}
    inputs: dict[str, np.ndarray] = {}
    computed = []
    for key, tensor in zip(_INPUTS[node.op_type], node.input, strict=False):
        if not tensor or key in _AT_CALL:
            continue
        array = _constant(model, tensor)
        if array is not None:
            inputs[key] = array
        elif key in ("W", "R", "B"):
            raise ConversionError(
                f"ONNX {node.op_type} {name!r}: the weight {key} (tensor {tensor!r}) depends on "
                "the inputs of the graph; expected a constant."
            )
        else:
            computed.append(key)
    return Node(name, node.op_type, attributes, inputs, tuple(computed))


def _constant(model: Any, tensor: str) -> np.ndarray | None:
    """Returns the value of a tensor that depends on no input of the graph, else None."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    stored = {each.name: each for each in model.graph.initializer}
    if tensor in stored:
        return onnx.numpy_helper.to_array(stored[tensor])
    nodes = model.graph.node
    makers = {output: index for index, node in enumerate(nodes) for output in node.output}
    needed, used, wanted = set(), {}, [tensor]
    while wanted:
        name = wanted.pop()
        if name in stored:
            used[name] = stored[name]
        elif name not in makers:
            return None
        elif makers[name] not in needed:
            needed.add(makers[name])
            wanted += [each for each in nodes[makers[name]].input if each]
    order = [nodes[index] for index in sorted(needed)]
    result = onnx.helper.make_empty_tensor_value_info(tensor)
    graph = onnx.helper.make_graph(order, "constant", [], [result], list(used.values()))
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import)
    return np.asarray(ReferenceEvaluator(part).run(None, {})[0])


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return [_text(each) for each in value] if isinstance(value, list) else value
