"""ONNX."""

from typing import Any

import numpy as np

from .shapes import FEATURES, Shape, randomise


class Onnx:
    """ONNX nodes, run by onnxruntime (float32) or by onnx's reference evaluator (float64)."""

    cells = ("gru", "gru_reset_before", "lstm", "rnn", "rnn_relu")
    biases, float64 = (True, False), False

    def build(self, shape: Shape) -> Any:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        op_type = {"gru": "GRU", "lstm": "LSTM", "rnn": "RNN"}[shape.cell.split("_")[0]]
        fused = {"GRU": 3, "LSTM": 4, "RNN": 1}[op_type] * FEATURES
        element = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}[shape.dtype]
        attributes = {
            "hidden_size": FEATURES,
            "direction": "bidirectional" if shape.directions == 2 else "forward",
        }
        if shape.cell == "gru":
            attributes["linear_before_reset"] = 1
        if shape.cell == "rnn_relu":
            attributes["activations"] = ["Relu"] * shape.directions
        rng, nodes, stored, inputs, outputs = shape.rng(), [], [], ["x", "lengths"], []
        below = "x"
        for index in range(shape.layers):
            sizes = {
                "W": (shape.directions, fused, shape.inputs(index)),
                "R": (shape.directions, fused, FEATURES),
            }
            if shape.bias:
                sizes["B"] = (shape.directions, 2 * fused)
            for key, size in sizes.items():
                array = randomise(rng, np.zeros(size, shape.dtype))
                stored.append(numpy_helper.from_array(array, f"{key}{index}"))
            fields = ["h", "c"][: 1 + shape.has_c]
            inputs += [f"start_{field}{index}" for field in fields]
            outputs += [f"end_{field}{index}" for field in fields]
            nodes.append(
                helper.make_node(
                    op_type,
                    [below, f"W{index}", f"R{index}", f"B{index}" if shape.bias else "", "lengths"]
                    + [f"start_{field}{index}" for field in fields],
                    [f"y{index}"] + [f"end_{field}{index}" for field in fields],
                    name=f"node{index}",
                    **attributes,
                )
            )
            # (T, directions, B, H) to (T, B, directions · H), what the next layer reads.
            nodes.append(
                helper.make_node("Transpose", [f"y{index}"], [f"t{index}"], perm=[0, 2, 1, 3])
            )
            nodes.append(helper.make_node("Reshape", [f"t{index}", "flat"], [f"x{index}"]))
            below = f"x{index}"
        stored.append(numpy_helper.from_array(np.array([0, 0, -1]), "flat"))
        graph = helper.make_graph(
            nodes,
            "network",
            [
                helper.make_tensor_value_info(
                    name,
                    TensorProto.INT32 if name == "lengths" else element,
                    [None] if name == "lengths" else [None] * 3,
                )
                for name in inputs
            ],
            [
                helper.make_tensor_value_info(name, element, [None] * 3)
                for name in [below, *outputs]
            ],
            stored,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        onnx.checker.check_model(model)
        return model

    def _names(self, model: Any) -> list[str]:
        return [node.name for node in model.graph.node if node.name]

    def plain(self, model: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        from onnx import helper, numpy_helper

        stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        nodes = []
        for node in model.graph.node:
            if node.name:
                attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
                attributes = {
                    k: v.decode()
                    if isinstance(v, bytes)
                    else [e.decode() for e in v]
                    if isinstance(v, list)
                    else v
                    for k, v in attributes.items()
                }
                names = zip(("X", "W", "R", "B"), node.input, strict=False)
                inputs = {key: stored[name] for key, name in names if name in stored}
                nodes.append(
                    {
                        "name": node.name,
                        "op_type": node.op_type,
                        "attributes": attributes,
                        "inputs": inputs,
                    }
                )
        return (nodes, self._names(model)), {}

    def run(self, model: Any, shape: Shape, x: Any, lengths: Any, start: Any) -> Any:
        import onnxruntime

        if lengths is None:
            lengths = np.full(x.shape[0], x.shape[1])
        given = {"x": np.swapaxes(x, 0, 1), "lengths": lengths.astype(np.int32)}
        for index, layer in enumerate(start):
            for field, arrays in zip("hc", zip(*layer, strict=True), strict=False):
                given[f"start_{field}{index}"] = np.stack(arrays)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        ys, *flat = session.run(None, given)
        ends, each = [], 1 + shape.has_c
        for index in range(shape.layers):
            fields = flat[index * each : (index + 1) * each]
            ends.append([[f[side] for f in fields] for side in range(shape.directions)])
        return np.swapaxes(ys, 0, 1), ends

    def convert(self, convert: Any, model: Any) -> Any:
        config, variables = convert.from_onnx(model, self._names(model))
        # The tests run all layers over (B, T, D).
        return {**config, "time_axis": 1}, variables

    def state(self, shape: Shape, start: Any) -> Any:
        fields = [
            [np.stack([side[i] for side in layer]) for layer in start]
            for i in range(1 + shape.has_c)
        ]
        return fields if shape.layers > 1 else [field[0] for field in fields]
