"""Small ONNX models of one kind of node, and what onnxruntime computes with them."""

from typing import Any

import numpy as np
import pytest

import registry
from zoo.recurrent import convert

onnx = pytest.importorskip("onnx")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
H, D = 4, 3
X = np.random.default_rng(1).normal(size=(6, 2, D)).astype(np.float32)


def random(*shape: int, seed: int = 5) -> np.ndarray:
    return (0.4 * np.random.default_rng([seed, *shape]).normal(size=shape)).astype(np.float32)


def gru(x: str = "X", out: str = "Y", h: str = "", w: str = "W", **more: Any) -> Any:
    inputs = [x, w, "R", "", "", h] if h else [x, w, "R"]
    return helper.make_node("GRU", inputs, [out], hidden_size=H, linear_before_reset=1, **more)


def value(name: str, kind: int = FLOAT, shape: Any = None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[Any],
    outputs: tuple[str, ...] = ("Y",),
    *,
    opset: int = 17,
    sides: int = 1,
    inputs: tuple[Any, ...] = (),
    functions: Any = (),
    x_shape: Any = ("T", "B", D),
    **stored: Any,
) -> Any:
    stored = {"W": random(sides, 3 * H, D), "R": random(sides, 3 * H, H), **stored}
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("X", shape=x_shape), *inputs],
        [value(name) for name in outputs],
        [
            onnx.numpy_helper.from_array(np.asarray(array), name)
            for name, array in stored.items()
            if array is not None
        ],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=list(functions))


def expected(made: Any, output: str = "Y", **feed: Any) -> np.ndarray:
    """What onnxruntime computes, as (T, B, directions · H)."""
    runtime = pytest.importorskip("onnxruntime")
    nameless = onnx.ModelProto()
    nameless.CopyFrom(made)
    for each in nameless.graph.node:  # onnxruntime takes no two of one name
        each.name = ""
    ys = runtime.InferenceSession(nameless.SerializeToString()).run([output], {"X": X, **feed})[0]
    return np.moveaxis(ys, 1, 2).reshape(ys.shape[0], ys.shape[2], -1)


def converted(made: Any, nodes: Any = None, **options: Any) -> np.ndarray:
    config, variables = convert.from_onnx(made, nodes, **options)
    return registry.build(config).apply(variables, None, X)[1]


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


GIVEN = value("given", shape=[1, "B", H])
