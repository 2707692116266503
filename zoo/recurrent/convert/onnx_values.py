"""The values of tensors in an ONNX file that no values of its inputs change."""

import itertools
from typing import Any, NamedTuple

import numpy as np

from zoo.recurrent.convert.onnx_scopes import Place, Scope, is_standard

_RANDOM = {
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"),
    *("RandomUniform", "RandomUniformLike"),
}
# Operators that hand on what their first input holds, all of it or a part.
_MOVES = {
    *("Cast", "CastLike", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape"),
    *("SequenceAt", "Slice", "Split", "SplitToSequence", "Squeeze", "Tile", "Transpose"),
    "Unsqueeze",
}
# Operators whose earlier definitions, and whose form in com.microsoft, are part of a later one,
# and that onnx's evaluator has in the later form only.
_PART_OF = {"DequantizeLinear": 21}
_SAME = ("", "ai.onnx", "com.microsoft")
_FOLD = (
    "Fold the constants of the file first, for example with onnxsim or with the basic graph "
    "optimisations of onnxruntime, and convert the result"
)
# A tensor of more elements decides no shape, and need not be copied to find shapes.
_LARGE = 1024

Key = tuple[Place, str]


class Missing(NamedTuple):
    """Why a tensor has no value before the graph is run.

    Attributes:
        reason: in words that follow the tensor's name.
        given: whether it is an input of the graph, all of it or a part.
    """

    reason: str
    given: bool = False


class Constants:
    """Finds the values of tensors.

    A tensor that depends on the open dimensions of the inputs is found as well, where its numbers
    do not: everything is then computed with two sets of sizes, and an axis that differs between
    both comes out with length 1 if all its entries are the same.

    Args:
        model: the `onnx.ModelProto`, without local functions.
        root: its graph.
    """

    def __init__(self, model: Any, root: Scope) -> None:
        self._runs = [_Run(model, root, smallest) for smallest in (67, 131)]

    def find(self, scope: Scope, tensor: str) -> np.ndarray | Missing:
        """Returns the value of a tensor that `scope` sees, or why there is none."""
        values = []
        for run in self._runs:
            value, by_size = run.value(scope, tensor)
            if isinstance(value, Missing) or not by_size:
                return value
            values.append(value)
        same = _same(*values)
        return Missing("changes with the sizes of the graph's inputs") if same is None else same


def _same(first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    if first.ndim != second.ndim:
        return None
    pairs = zip(first.shape, second.shape, strict=True)
    one = first[tuple(slice(None) if m == n else slice(1) for m, n in pairs)]
    equal = all(np.array_equal(np.broadcast_to(one, a.shape), a) for a in (first, second))
    return one if equal else None


class _Run:
    """Values with every open dimension of the inputs set to a size."""

    def __init__(self, model: Any, root: Scope, smallest: int) -> None:
        self._model = model
        self._root = root
        self._scopes = {scope.place: scope for scope in root.walk()}
        self._smallest = smallest
        self._shapes: dict[Key, tuple[int, ...]] | None = None
        self._known: dict[Key, Any] = {}
        self._by_size: set[Key] = set()

    def value(self, scope: Scope, tensor: str) -> tuple[Any, bool]:
        """Returns the value, or why there is none; and whether it depends on any shape."""
        # A list of its own instead of recursion: graphs are deeper than Python's stack.
        wanted = [self._key(scope, tensor)]
        while wanted:
            key = wanted[-1]
            needs = self._needs(key)
            missing = [need for need in needs if isinstance(self._known.get(need), Missing)]
            # What is missing decides, in the order of the inputs; of a Concat all are asked.
            decisive = missing if self._op(key) != "Concat" else []
            first = next((n for n in needs if n not in self._known or n in decisive), None)
            if first is not None and first not in self._known:
                if first in wanted:
                    self._known[first] = Missing("is made from itself")
                else:
                    wanted.append(first)
                continue
            if missing:
                self._known[key] = self._without(key, needs, self._known[missing[0]])
            else:
                self._known[key] = self._make(key, [self._known[need] for need in needs])
            if self._op(key) in ("Shape", "Size") or self._by_size.intersection(needs):
                self._by_size.add(key)
            wanted.pop()
        key = self._key(scope, tensor)
        value = self._known[key]
        return value if isinstance(value, Missing) else np.asarray(value), key in self._by_size

    def _key(self, scope: Scope, tensor: str) -> Key:
        return ((scope.home(tensor) or self._root).place, tensor)

    def _node(self, key: Key) -> Any:
        scope = self._scopes[key[0]]
        if key[1] in scope.stored or key[1] not in scope.makers:
            return None
        return scope.nodes[scope.makers[key[1]]]

    def _op(self, key: Key) -> str:
        node = self._node(key)
        return node.op_type if node is not None and is_standard(node) else ""

    def _needs(self, key: Key) -> list[Key]:
        scope, node = self._scopes[key[0]], self._node(key)
        if node is None:
            if key[1] in scope.stored or scope.call is None:
                return []
            # Both Loop and Scan hand their inputs to the body in the same order.
            outer = [*scope.call.input, *[""] * len(scope.inputs)][scope.inputs[key[1]]]
            assert scope.parent is not None
            return [self._key(scope.parent, outer)] if outer else []
        op = self._op(key)
        inputs = [self._key(scope, each) for each in node.input if each]
        if op in _RANDOM or (op in ("Shape", "Size") and self._shape(inputs[0]) is not None):
            return []
        index = scope.makers[key[1]]
        if op == "If":
            condition = self._known.get(inputs[0])
            if condition is None or isinstance(condition, Missing):
                return inputs
            branch = "then_branch" if np.all(condition) else "else_branch"
            body = scope.bodies[index, branch]
            output = body.graph.output[list(node.output).index(key[1])].name
            return [*inputs, self._key(body, output)]
        return inputs + [self._key(scope, each) for each in scope.captured(index)]

    def _without(self, key: Key, needs: list[Key], why: Missing) -> Missing:
        """Returns why a tensor is missing when something that it needs is."""
        op, node = self._op(key), self._node(key)
        if node is None:
            return why
        if op in ("Shape", "Size"):
            return Missing(
                f"depends on the shape of {node.input[0]!r}, which onnx's shape inference does "
                f"not find. {_FOLD}"
            )
        data = needs if op == "Concat" else needs[:1]
        known = [self._known.get(each) for each in data]
        if op in _MOVES and all(isinstance(each, Missing) and each.given for each in known):
            return why
        return Missing(f"{why.reason} through {node.op_type}") if why.given else why

    def _make(self, key: Key, values: list[Any]) -> Any:
        place, name = key
        scope, node, op = self._scopes[place], self._node(key), self._op(key)
        if name in scope.stored:
            return _read(scope.stored[name])
        if node is None and scope.call is None:
            if name in scope.inputs:
                return Missing(f"depends on the inputs of the graph (here {name!r})", True)
            return Missing("is made by nothing in the file")
        if node is None:
            # A state that begins with zeros is the carry that steps begin with here, too.
            zeros = bool(values) and not np.any(values[0])
            return Missing(f"changes with every step of the {scope.call.op_type} around it", zeros)
        if op == "If":
            return values[-1]
        drawn = self._drawn(scope, scope.makers[name])
        if drawn:
            return Missing(f"is drawn at random by {drawn}")
        inputs = [each for each in node.input if each]
        if op in ("Shape", "Size") and not values:
            shape = self._shape(self._key(scope, inputs[0]))
            assert shape is not None
            values = [np.broadcast_to(np.float32(0), shape)]
        names = inputs + scope.captured(scope.makers[name])
        return self._compute(node, name, dict(zip(names, values, strict=True)))

    def _drawn(self, scope: Scope, index: int) -> str:
        """Returns the random operator that a node is or that its bodies have."""
        bodies = [body for (of, _), body in scope.bodies.items() if of == index]
        inner = [node for body in bodies for each in body.walk() for node in each.nodes]
        found = (node.op_type for node in [scope.nodes[index], *inner] if node.op_type in _RANDOM)
        return next(found, "")

    def _compute(self, node: Any, output: str, values: dict[str, Any]) -> Any:
        import onnx
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        imported = self._model.opset_import
        opsets = {
            "" if each.domain == "ai.onnx" else each.domain: each.version for each in imported
        }
        version = opsets.get("" if is_standard(node) else node.domain)
        alone = onnx.NodeProto()
        alone.CopyFrom(node)
        later = _PART_OF.get(node.op_type) if node.domain in _SAME else None
        if is_standard(node) or later:
            alone.domain = ""
            opsets[""] = max(opsets.get("", 0), later or 0)
        inputs, outputs = (
            [helper.make_empty_tensor_value_info(name) for name in names]
            for names in (values, [output])
        )
        graph = helper.make_graph([alone], "constant", inputs, outputs)
        imports = [helper.make_opsetid(*each) for each in opsets.items()]
        try:
            evaluator: Any = ReferenceEvaluator(helper.make_model(graph, opset_imports=imports))
            return evaluator.run(None, values)[0]
        except Exception as error:  # onnx raises many kinds for what it cannot compute
            domain = "" if is_standard(node) else f"{node.domain}::"
            return Missing(
                f"is made by the operator {domain}{node.op_type} (opset {version}), which onnx's "
                f"evaluator does not compute here ({error}). {_FOLD}"
            )

    def _shape(self, key: Key) -> tuple[int, ...] | None:
        if self._shapes is None:
            self._shapes = _infer_shapes(self._model, self._root, self._smallest)
        return self._shapes.get(key)


def _read(stored: Any) -> Any:
    import onnx

    if hasattr(stored, "indices"):
        values, indices = (onnx.numpy_helper.to_array(a) for a in (stored.values, stored.indices))
        dense = np.zeros(tuple(stored.dims), values.dtype)
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        else:
            dense[tuple(indices.T)] = values
        return dense
    if stored.data_location == onnx.TensorProto.EXTERNAL:
        return Missing(
            "lies in another file, which has not been read. Give the path of the model, or load "
            "it with onnx.load(path), which reads both"
        )
    return onnx.numpy_helper.to_array(stored)


def _infer_shapes(model: Any, root: Scope, smallest: int) -> dict[Key, tuple[int, ...]]:
    """Returns the shapes that onnx infers with every open dimension set, from `smallest` on."""
    import onnx

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph = probe.graph
    # What an exporter wrote there can be of the sizes that it happened to see.
    for each in graph.output:
        each.type.tensor_type.ClearField("shape")
    sizes: dict[Any, int] = {}
    count = itertools.count(smallest)
    sequences = {
        node.input[0]
        for scope in root.walk()
        for node in scope.nodes
        if node.op_type in ("GRU", "LSTM", "RNN") and is_standard(node)
    }
    for each in graph.input:
        kind = each.type.tensor_type
        if each.name in sequences and not kind.HasField("shape"):
            for _ in range(3):
                kind.shape.dim.add()
        for axis, dim in enumerate(kind.shape.dim):
            if dim.dim_value <= 0:
                symbol = dim.dim_param or (each.name, axis)
                dim.dim_value = sizes[symbol] if symbol in sizes else next(count)
                sizes[symbol] = dim.dim_value
    # Shape inference writes the model as one message, which has to be shorter than 2 GB.
    large = [each for each in graph.initializer if np.prod(each.dims) > _LARGE]
    small = [each for each in graph.initializer if np.prod(each.dims) <= _LARGE]
    declared = {each.name for each in graph.input}
    graph.input.extend(
        onnx.helper.make_tensor_value_info(each.name, each.data_type, list(each.dims))
        for each in large
        if each.name not in declared
    )
    kept = [onnx.TensorProto.FromString(each.SerializeToString()) for each in small]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    try:
        inferred = onnx.shape_inference.infer_shapes(probe, data_prop=True)
    except Exception:  # onnx raises many kinds; what is not found is said where it is needed
        return {}
    shapes = {}
    for scope in Scope(inferred.graph).walk():
        declared_here = [*scope.graph.value_info, *scope.graph.input, *scope.graph.output]
        for each in declared_here:
            kind = each.type.tensor_type
            dims = [dim.dim_value for dim in kind.shape.dim if dim.HasField("dim_value")]
            if kind.HasField("shape") and len(dims) == len(kind.shape.dim):
                shapes[scope.place, each.name] = tuple(dims)
        for name, tensor in scope.stored.items():
            shapes[scope.place, name] = tuple(tensor.dims)
    return shapes
