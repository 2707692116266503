"""ONNX files as they are exported: names, bodies, functions and folded weights."""

from typing import Any

import numpy as np
import pytest

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


def sub(nodes: list[Any], out: str = "Y", inputs: tuple[Any, ...] = ()) -> Any:
    return helper.make_graph(nodes, "body", list(inputs), [value(out)])


def branches(first: Any, second: Any) -> Any:
    return helper.make_node("If", ["c"], ["Y"], name="rate", then_branch=first, else_branch=second)


def function(nodes: list[Any]) -> Any:
    return helper.make_function(
        "own", "GRU", ["X", "W", "R"], ["Y"], nodes, [helper.make_opsetid("", 17)]
    )


def called(out: str, w: str = "W") -> Any:
    return helper.make_node("GRU", ["X", w, "R"], [out], domain="own", name=f"call {out}")


CONDITION = (value("c", onnx.TensorProto.BOOL, []),)
SEVERAL: dict[str, tuple[Any, list[str], dict[str, str]]] = {
    "no names": (([gru(), gru(out="Z", w="V")], ("Y", "Z")), ["Y", "Z"], {}),
    "equal names": (
        ([gru(name="n"), gru(out="Z", w="V", name="n")], ("Y", "Z")),
        ["n:Y", "n:Z"],
        {"Y": "n:Y", "Z": "n:Z"},
    ),
    "a name that is another's output": (
        ([gru(name="Z"), gru(out="Z", w="V")], ("Y", "Z")),
        ["Z:Y", "Z:Z"],
        {"Y": "Z:Y"},
    ),
    "branches": (
        ([branches(sub([gru(name="n")]), sub([gru(name="n", w="V")]))], ("Y",), CONDITION),
        ["rate/else_branch/n", "rate/then_branch/n"],
        {},
    ),
    "functions": (
        ([called("Y"), called("Z", "V")], ("Y", "Z"), (), [function([gru(name="n")])]),
        ["n:Y", "n:Z"],
        {"Y": "n:Y", "Z": "n:Z"},
    ),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_nodes_are_told_apart(case: str) -> None:
    (nodes, outputs, *more), labels, aliases = SEVERAL[case]
    inputs, functions = (*more, (), ())[:2]
    v = 2 * random(1, 3 * H, D)
    made = model(nodes, outputs, inputs=inputs, functions=functions, V=v)
    with pytest.raises(ConversionError, match="`nodes`") as error:
        convert.from_onnx(made)
    assert str(labels) in str(error.value)
    for label in labels:
        second = label in ("Z", "n:Z", "Z:Z", "rate/else_branch/n")
        feed = {"c": np.array(not second)} if inputs else {}
        ys = expected(made, "Z" if second and not inputs else "Y", **feed)
        assert_close(converted(made, label), ys)
    for alias, label in aliases.items():
        assert_close(converted(made, alias), converted(made, label))
    if labels[0].startswith(("n", "rate")):
        with pytest.raises(ConversionError, match="2 nodes are called 'n'; expected one"):
            convert.from_onnx(made, "n")
    with pytest.raises(ConversionError, match="the recurrent nodes are"):
        convert.from_onnx(made, "")


def test_mappings_of_one_name() -> None:
    plain = {
        "op_type": "GRU",
        "inputs": {"W": random(1, 12, D), "R": random(1, 12, H)},
        "name": "a",
    }
    for names in ("a", None):
        with pytest.raises(ConversionError, match="'a', 'a'"):
            convert.from_onnx([plain, plain], names)


@pytest.mark.parametrize("h", ["zeros", "given", "h0", "weights"])
def test_loops(h: str) -> None:
    """A loop over steps; the state that it carries is the carry of the call."""
    weights = h == "weights"
    step = helper.make_node(
        "GRU",
        ["one", "carried" if weights else "W", "R", "", "", "" if weights else "carried"],
        ["y", "last"],
        hidden_size=H,
        linear_before_reset=1,
        name="n",
    )
    out = "w" if weights else "last"
    keep = [node("Identity", "carried", "w")] if weights else []
    body = helper.make_graph(
        [node("Unsqueeze", "x axis", "one"), step, *keep],
        "body",
        [value("carried"), value("x")],
        [value(out), value("y")],
    )
    first = "W" if weights else h
    scan = helper.make_node("Scan", [first, "X"], ["end", "Y"], body=body, num_scan_inputs=1)
    made = model(
        [scan],
        inputs=(GIVEN,),
        axis=np.array([0]),
        h0=random(1, 1, H),
        zeros=np.zeros((1, 2, H), np.float32),
    )
    if weights:
        with pytest.raises(ConversionError, match=r"weight W .* every step of the Scan"):
            convert.from_onnx(made)
    elif h == "h0":
        with pytest.raises(ConversionError, match=r"initial_h .* every step of the Scan"):
            convert.from_onnx(made)
    else:
        ys = converted(made)
        if h == "zeros":
            runtime = pytest.importorskip("onnxruntime")
            feed = {"X": X, "given": random(1, 2, H)}
            session = runtime.InferenceSession(made.SerializeToString())
            assert_close(ys, session.run(["Y"], feed)[0][:, 0, 0])


def quantised(axis: int | None, **more: Any) -> tuple[list[Any], dict[str, Any]]:
    scale = np.float32(0.01) if axis is None else np.linspace(0.01, 0.02, D, dtype=np.float32)
    whole = np.random.default_rng(3).integers(-99, 99, (1, 3 * H, D)).astype(np.int8)
    zero = np.int8(3) if axis is None else np.arange(D, dtype=np.int8)
    attributes = {} if axis is None else {"axis": axis}
    made = helper.make_node("DequantizeLinear", ["q", "k", "z"], ["V"], **attributes, **more)
    return [made], {"q": whole, "k": scale, "z": zero}


FOLDED: dict[str, tuple[list[Any], dict[str, Any], tuple[int, ...]]] = {
    "dequantised": (*quantised(None), (10, 13, 17, 19, 21)),
    "dequantised along an axis": (*quantised(2), (13, 17, 19, 21)),
    "dequantised by onnxruntime": (*quantised(2, domain="com.microsoft"), (13, 17)),
    "quantised and back": (
        [node("QuantizeLinear", "f k z", "q"), node("DequantizeLinear", "q k z", "V")],
        {"f": random(1, 3 * H, D), "k": np.float32(0.01), "z": np.int8(0)},
        (10, 13, 17, 21),
    ),
    "rearranged": (
        [
            node(
                "Constant", "", "a", value=onnx.numpy_helper.from_array(random(D, H).astype("f2"))
            ),
            node("Cast", "a", "f", to=FLOAT),
            node("Transpose", "f", "t", perm=[1, 0]),
            node("Concat", "t t t t", "four", axis=0),
            node("Slice", "four start stop", "three"),
            node("Reshape", "three shape", "V"),
        ],
        {"start": np.array([H]), "stop": np.array([4 * H]), "shape": np.array([1, 3 * H, D])},
        (10, 14, 17, 22),
    ),
    "chosen": (
        [
            node("Shape", "X", "s"),
            node("Size", "s", "rank"),
            node("Equal", "rank three", "c"),
            helper.make_node(
                "If",
                ["c"],
                ["V"],
                then_branch=sub([node("Mul", "a two", "p")], "p"),
                else_branch=sub([node("Identity", "a", "p")], "p"),
            ),
        ],
        {"a": random(1, 3 * H, D), "two": np.float32(2), "three": np.int64(3)},
        (11, 14, 17, 22),
    ),
}


@pytest.mark.parametrize(
    ("way", "opset"), [(way, opset) for way, (_, _, opsets) in FOLDED.items() for opset in opsets]
)
def test_weights_are_folded(way: str, opset: int) -> None:
    nodes, stored, _ = FOLDED[way]
    made = model([*nodes, gru(w="V")], opset=opset, **stored)
    if "onnxruntime" in way:
        made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert_close(converted(made), expected(made))


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([helper.make_node("Strange", ["W"], ["V"], domain="own")], "own::Strange .*Fold"),
        ([node("RandomNormal", "", "V", shape=[1, 3 * H, D])], "drawn at random"),
        ([node("Mul", "W given", "V")], "depends on the inputs .*'given'.* through Mul"),
    ],
)
def test_weights_that_are_no_constants_are_refused(nodes: list[Any], words: str) -> None:
    made = model([*nodes, gru(w="V", name="n")], inputs=(GIVEN,))
    with pytest.raises(ConversionError, match=f"the weight W .*{words}"):
        convert.from_onnx(made)


@pytest.mark.parametrize("opset", [7, 14, 22])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_opsets_and_initialisers_that_are_inputs(opset: int, direction: str) -> None:
    sides = 2 if direction == "bidirectional" else 1
    inputs = (value("W", shape=[sides, 3 * H, D]), value("R", shape=[sides, 3 * H, H]))
    made = model([gru(direction=direction)], opset=opset, sides=sides, inputs=inputs)
    assert_close(converted(made), expected(made))


def test_sparse_and_absent_weights() -> None:
    dense = random(1, 3 * H, D) * (random(1, 3 * H, D) > 0)
    at = np.flatnonzero(dense)
    made = model([gru()], W=None)
    numbers = onnx.numpy_helper.from_array(dense.reshape(-1)[at], "W")
    for indices in (at, np.stack(np.unravel_index(at, dense.shape), 1)):
        del made.graph.sparse_initializer[:]
        where = onnx.numpy_helper.from_array(indices.astype(np.int64), "W_indices")
        made.graph.sparse_initializer.append(
            helper.make_sparse_tensor(numbers, where, list(dense.shape))
        )
        assert_close(converted(made), expected(model([gru()], W=dense)))
    made = model([gru()])
    made.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(ConversionError, match="in another file"):
        convert.from_onnx(made)


def test_operators_of_other_domains_are_named() -> None:
    strange = helper.make_node("DynamicQuantizeLSTM", ["X"], ["Y"], domain="com.microsoft")
    with pytest.raises(ConversionError, match=r"none.*com.microsoft::DynamicQuantizeLSTM"):
        convert.from_onnx(model([strange]))
