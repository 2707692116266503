"""Initial states of ONNX nodes: learned, given, and such as the graph computes."""

import io
from typing import Any

import numpy as np
import pytest

import registry
from zoo.recurrent import convert
from zoo.recurrent.convert import ConversionError

from .comparison import assert_close
from .onnx_models import (
    FLOAT,
    GIVEN,
    D,
    H,
    X,
    converted,
    expected,
    gru,
    helper,
    model,
    node,
    onnx,
    random,
    value,
)

pytestmark = pytest.mark.interop

BATCH = [node("Shape", "X", "s"), node("Gather", "s one", "b", axis=0)]
NUMBERS = {"one": np.array([1]), "side": np.array([1]), "width": np.array([H])}
H0 = random(1, 1, H)
# Ways in which exporters repeat a state for the open batch, and what they store for it.
REPEATED = {
    "expand": (
        [*BATCH, node("Concat", "side b width", "d", axis=0), node("Expand", "h0 d", "h")],
        {},
    ),
    "tile": ([*BATCH, node("Concat", "side b side", "d", axis=0), node("Tile", "h0 d", "h")], {}),
    "constant": (
        [
            *BATCH,
            node("Concat", "side b width", "d", axis=0),
            node(
                "ConstantOfShape", "d", "h", value=onnx.numpy_helper.from_array(np.float32([0.3]))
            ),
        ],
        {},
    ),
    "of a transposed tensor": (
        [
            node("Transpose", "X", "xt", perm=[1, 0, 2]),
            node("Shape", "xt", "s"),
            node("Slice", "s zero side zero", "b"),
            node("Concat", "side b width", "d", axis=0),
            node("Expand", "h0 d", "h"),
        ],
        {"zero": np.array([0])},
    ),
    "unless it is one": (
        [
            *BATCH,
            node("Concat", "side b width", "d", axis=0),
            node("Equal", "b side", "c"),
            node("Squeeze", "c", "cs"),
            helper.make_node(
                "If",
                ["cs"],
                ["h"],
                then_branch=helper.make_graph([node("Identity", "h0", "p")], "t", [], [value("p")]),
                else_branch=helper.make_graph([node("Expand", "h0 d", "p")], "e", [], [value("p")]),
            ),
        ],
        {},
    ),
    "dequantised": (
        [
            node("DequantizeLinear", "q scale", "hq"),
            *BATCH,
            node("Concat", "side b side", "d", axis=0),
            node("Tile", "hq d", "h"),
        ],
        {"q": np.arange(-2, 2, dtype=np.int8).reshape(1, 1, H), "scale": np.float32(0.2)},
    ),
}


@pytest.mark.parametrize("x_shape", [("T", "B", D), (None, None, None), None])
@pytest.mark.parametrize("way", REPEATED)
def test_a_state_repeated_for_the_open_batch_is_the_learned_carry(way: str, x_shape: Any) -> None:
    nodes, stored = REPEATED[way]
    made = model([*nodes, gru(h="h")], x_shape=x_shape, h0=H0, **NUMBERS, **stored)
    ys = expected(made)
    assert convert.from_onnx(made)[0]["learned_carry"] is True
    assert_close(converted(made), ys)
    assert "learned_carry" not in convert.from_onnx(made, initial_state=False)[0]
    carry = convert.initial_carry_from_onnx(made)
    assert carry.shape == (1, H)


def test_shapes_that_an_exporter_happened_to_see() -> None:
    nodes, stored = REPEATED["of a transposed tensor"]
    made = model([*nodes, gru(h="h")], ("Y", "xt"), h0=H0, **NUMBERS, **stored)
    ys = expected(made)
    seen = value("xt", shape=[5, 7, D])
    made.graph.output[1].CopyFrom(seen)
    assert convert.initial_carry_from_onnx(made).shape == (1, H)
    assert_close(converted(made), ys)


UNKNOWN = {
    "through Relu": [node("Relu", "given", "h")],
    "through Add": [node("Add", "given h0", "h")],
    "through Concat": [
        node("Concat", "given h0", "two", axis=0),
        node("Split", "two", "r h", axis=0),
    ],
    "'given'.* through Concat": [
        node("Relu", "given", "g"),
        node("Concat", "given g", "h", axis=0),
    ],
    "through GRU": [helper.make_node("GRU", ["X", "W", "R"], ["", "h"], hidden_size=H, name="low")],
    "drawn at random": [node("RandomNormal", "", "h", shape=[1, 2, H])],
    "own::Strange": [helper.make_node("Strange", ["h0"], ["h"], domain="own")],
    "shape of 'z'": [
        helper.make_node("Strange", ["X"], ["z"], domain="own"),
        node("Shape", "z", "d"),
        node("Expand", "h0 d", "h"),
    ],
    "sizes of the graph's inputs": [
        *BATCH,
        node("Cast", "b", "f", to=FLOAT),
        node("Mul", "h0 f", "h"),
    ],
    "made by nothing": [],
    "made from itself": [node("Identity", "g", "h"), node("Identity", "h", "g")],
}


@pytest.mark.parametrize("words", UNKNOWN)
def test_a_state_that_is_neither_found_nor_given_is_refused(words: str) -> None:
    made = model([*UNKNOWN[words], gru(h="h", name="n")], inputs=(GIVEN,), h0=H0, **NUMBERS)
    for call in (convert.from_onnx, convert.initial_carry_from_onnx):
        with pytest.raises(ConversionError, match=f"initial_h .*{words}.*initial_state=False"):
            call(made, "n")
    assert "learned_carry" not in convert.from_onnx(made, "n", initial_state=False)[0]


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Identity", "given", "h")],
        [
            node("Split", "given", "left right", axis=2),
            node("Identity", "left", "l"),
            node("Concat", "l right", "h", axis=2),
        ],
        [node("Transpose", "given", "t", perm=[0, 1, 2]), node("Slice", "t zero side zero", "h")],
        [node("Concat", "given given", "two", axis=0), node("Split", "two", "h rest", axis=0)],
    ],
)
def test_a_state_that_is_given_is_the_carry_of_the_call(nodes: list[Any]) -> None:
    made = model([*nodes, gru(h="h")], inputs=(GIVEN,), zero=np.array([0]), **NUMBERS)
    h = random(1, 2, H)
    ys = expected(made, given=h)
    config, variables = convert.from_onnx(made)
    assert "learned_carry" not in config
    carry = convert.carry_from_onnx(config, h)
    assert_close(registry.build(config).apply(variables, carry, X)[1], ys)


def test_a_carry_is_given_or_learned_as_a_whole() -> None:
    inputs = ["X", "W", "R", "", "", "given", "c0"]
    lstm = helper.make_node("LSTM", inputs, ["Y"], hidden_size=H)
    weights = {"W": random(1, 4 * H, D), "R": random(1, 4 * H, H)}
    made = model([lstm], inputs=(GIVEN,), c0=random(1, 2, H)[:, :1], **weights)
    with pytest.raises(ConversionError, match="constant initial state beside initial_h of 'Y'"):
        convert.from_onnx(made)
    c, h = convert.initial_carry_from_onnx(made)
    assert np.any(c) and not np.any(h)
    made = model([lstm], inputs=(GIVEN,), c0=np.zeros((1, 2, H), np.float32), **weights)
    assert convert.from_onnx(made)[0]["name"] == "scan_lstm"


@pytest.mark.filterwarnings("ignore")  # of the exporter about itself
@pytest.mark.parametrize("way", ["repeat", "expand"])
@pytest.mark.parametrize(("batch_first", "sides"), [(False, 1), (True, 2)])
def test_learned_states_that_torch_exports(way: str, batch_first: bool, sides: int) -> None:
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.LSTM(D, H, 2, bidirectional=sides == 2, batch_first=batch_first)
            shape = 2 * sides, 1, H
            self.h, self.c = (torch.nn.Parameter(torch.randn(shape)) for _ in range(2))

        def forward(self, x: Any) -> Any:
            count = x.shape[0 if batch_first else 1]
            states = (
                s.repeat(1, count, 1) if way == "repeat" else s.expand(-1, count, -1)
                for s in (self.h, self.c)
            )
            return self.rnn(x, tuple(states))[0]

    net, file = Net().eval(), io.BytesIO()
    x = torch.from_numpy(np.swapaxes(X, 0, 1).copy() if batch_first else X)
    axes = {"x": {0: "a", 1: "b"}}
    torch.onnx.export(
        net, (x,), file, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes=axes
    )
    made = onnx.load_from_string(file.getvalue())
    names = [each.name for each in made.graph.node if each.op_type == "LSTM"]
    ys = net(x).detach().numpy()
    assert_close(converted(made, names), np.swapaxes(ys, 0, 1) if batch_first else ys)
