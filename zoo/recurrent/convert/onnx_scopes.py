"""The graphs of an ONNX file, one inside another, and which of them makes a tensor."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

from zoo.recurrent.convert.errors import ConversionError

# Where a graph lies: the index of a node and its attribute, for each step inwards.
Place = tuple[tuple[int, str], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Scope:
    """A graph, or the body of an If, Loop or Scan node, which sees the tensors around it.

    Attributes:
        graph: the `onnx.GraphProto`.
        parent: the scope of the node that the graph is a body of; None for the graph of the file.
        place: where that is.
        path: the same in words, "node/attribute/".
    """

    graph: Any
    parent: Self | None = None
    place: Place = ()
    path: str = ""
    nodes: list[Any] = dataclasses.field(init=False)
    stored: dict[str, Any] = dataclasses.field(init=False)
    makers: dict[str, int] = dataclasses.field(init=False)
    inputs: dict[str, int] = dataclasses.field(init=False)
    bodies: dict[tuple[int, str], Self] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        graph = self.graph
        nodes = list(graph.node)
        sparse = {each.values.name: each for each in graph.sparse_initializer}
        found = {
            "nodes": nodes,
            "stored": {each.name: each for each in graph.initializer} | sparse,
            "makers": {out: index for index, node in enumerate(nodes) for out in node.output},
            "inputs": {each.name: index for index, each in enumerate(graph.input)},
            "bodies": {},
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)
        for index, node in enumerate(nodes):
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    step = (index, attribute.name)
                    path = f"{self.path}{name_of(node)}/{attribute.name}/"
                    inner = type(self)(attribute.g, self, (*self.place, step), path)
                    self.bodies[step] = inner

    @property
    def call(self) -> Any:
        """The node that the graph is a body of; None for the graph of the file."""
        return self.parent.nodes[self.place[-1][0]] if self.parent else None

    def walk(self) -> Iterator[Self]:
        """Goes through this scope and all inside it."""
        yield self
        for body in self.bodies.values():
            yield from body.walk()

    def home(self, tensor: str) -> Self | None:
        """Returns the innermost scope that has the tensor; None if there is none."""
        scope: Self | None = self
        while scope is not None:
            if tensor in scope.stored or tensor in scope.makers or tensor in scope.inputs:
                return scope
            scope = scope.parent
        return None

    def captured(self, index: int) -> list[str]:
        """Returns what the bodies of a node use of the tensors around it."""
        names: dict[str, None] = {}
        for (of, _), body in self.bodies.items():
            for inner in body.walk() if of == index else ():
                used = [name for node in inner.nodes for name in node.input if name]
                for name in used + [output.name for output in inner.graph.output]:
                    home = inner.home(name)
                    if home and home.place[: len(body.place)] != body.place:
                        names[name] = None
        return list(names)


@dataclasses.dataclass(frozen=True)
class Found:
    """A node and where it was found.

    Attributes:
        label: the one name that it is listed by.
        aliases: what else it may be called where no other node is called so.
    """

    label: str
    aliases: tuple[str, ...]
    node: Any
    scope: Any = None


def name_of(node: Any) -> str:
    """Returns the name of a node; its first output where it has no name."""
    return node.name or next((each for each in node.output if each), node.op_type)


def is_standard(node: Any) -> bool:
    """Whether the node is one of ONNX's own operators, and not another of the same name."""
    return node.domain in ("", "ai.onnx")


def inlined(model: Any) -> tuple[Any, set[str]]:
    """Returns the model without local functions, and the node names that this made.

    Raises:
        ConversionError: onnx cannot write the functions out.
    """
    if not model.functions:
        return model, set()
    from onnx import inliner

    try:
        written = inliner.inline_local_functions(model)
    except Exception as error:  # whatever C++ has to say
        raise ConversionError(
            f"ONNX file: its local functions cannot be written out: {error}. Likely cause: they "
            "are of another opset than the graph. Inline them when the model is exported."
        ) from error
    known = {node.name for scope in Scope(model.graph).walk() for node in scope.nodes}
    return written, {
        node.name for scope in Scope(written.graph).walk() for node in scope.nodes
    } - known


def find_nodes(root: Scope, op_types: Any, renamed: set[str]) -> list[Found]:
    """Returns all nodes of these operators, in bodies too, each with a label of its own.

    Args:
        root: the graph of the file.
        op_types: names of operators of ONNX's own.
        renamed: names of nodes that had another one, but for a number, in a local function.
    """
    places = [
        (scope, node)
        for scope in root.walk()
        for node in scope.nodes
        if node.op_type in op_types and is_standard(node)
    ]
    forms = []
    for index, (scope, node) in enumerate(places):
        name = name_of(node)
        own = re.sub(r"__\d+$", "", name) if name in renamed else name
        longer = f"{scope.path}{own}:{next((each for each in node.output if each), '')}"
        forms.append((f"{scope.path}{own}", longer, f"{longer}#{index}"))
    counts = [Counter(level) for level in zip(*forms, strict=True)]
    found = []
    for (scope, node), form in zip(places, forms, strict=True):
        label = next(
            (name for name, count in zip(form, counts, strict=True) if count[name] == 1), form[-1]
        )
        aliases = (*form, form[0].removeprefix(scope.path), node.name, *node.output)
        found.append(Found(label, tuple(filter(None, aliases)), node, scope))
    return found
