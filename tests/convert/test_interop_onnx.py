"""ONNX beyond the grid: directions, layouts, float64, initial states, computed weights, exports."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import registry
from zoo.recurrent import convert
from zoo.recurrent.convert import ConversionError, activations

from . import reference
from .comparison import assert_close

pytestmark = pytest.mark.interop

H = 4
GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
X = np.random.default_rng(1).normal(size=(6, 2, 3))


@pytest.fixture
def onnx() -> Any:
    return pytest.importorskip("onnx")


def random(*shape: int, dtype: str = "float32", seed: int = 5) -> np.ndarray:
    return (0.4 * np.random.default_rng([seed, *shape]).normal(size=shape)).astype(dtype)


def model(op_type: str, extra: Any = (), dtype: str = "float32", **attributes: Any) -> Any:
    """A model of one node; `extra` holds further constant inputs by name."""
    onnx = pytest.importorskip("onnx")
    helper, fused = onnx.helper, GATES[op_type] * H
    sides = 2 if attributes.get("direction") == "bidirectional" else 1
    stored = {
        "W": random(sides, fused, 3, dtype=dtype),
        "R": random(sides, fused, H, dtype=dtype),
        "B": random(sides, 2 * fused, dtype=dtype),
        **dict(extra),
    }
    order = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
    inputs = [key if key == "X" or key in stored else "" for key in order]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op_type == "LSTM" else 2]
    inputs = inputs if op_type == "LSTM" else inputs[:6]
    node = helper.make_node(op_type, inputs, outputs, name="n", hidden_size=H, **attributes)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("X", element, [None] * 3)],
        [helper.make_tensor_value_info(name, element, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, key) for key, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def run(made: Any, x: np.ndarray, by_reference: bool = False) -> list[np.ndarray]:
    if by_reference:
        evaluator = pytest.importorskip("onnx.reference")
        return evaluator.ReferenceEvaluator(made).run(None, {"X": x})
    runtime = pytest.importorskip("onnxruntime")
    return runtime.InferenceSession(made.SerializeToString()).run(None, {"X": x})


def joined(ys: np.ndarray) -> np.ndarray:
    """(T, directions, B, H) to (T, B, directions · H)."""
    return np.moveaxis(ys, 1, 2).reshape(ys.shape[0], ys.shape[2], -1)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("GRU", {"linear_before_reset": 0}),
        ("GRU", {"linear_before_reset": 1}),
        ("LSTM", {}),
        ("RNN", {}),
    ],
)
def test_directions(
    onnx: Any, op_type: str, attributes: Any, direction: str, tmp_path: Path
) -> None:
    made = model(op_type, direction=direction, **attributes)
    onnx.save(made, tmp_path / "model.onnx")
    x = X.astype(np.float32)
    ys, *ends = run(made, x)
    for source in (made, tmp_path / "model.onnx", str(tmp_path / "model.onnx")):
        config, variables = convert.from_onnx(source)
        carry, outputs = reference.run(config, variables, x)
        assert_close(outputs, joined(ys))
        assert_close(convert.carry_from_onnx(config, *ends), carry)
        assert_close(convert.carry_to_onnx(config, carry), ends)
    assert config.get("reverse", False) == (direction == "reverse")
    outputs = registry.build(config).apply(variables, None, x)[1]
    assert_close(outputs, joined(ys))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("GRU", {"linear_before_reset": 0}),
        ("GRU", {"linear_before_reset": 1}),
        ("LSTM", {}),
        ("RNN", {}),
    ],
)
def test_batch_first_and_float64(op_type: str, attributes: Any, dtype: str) -> None:
    # onnxruntime has neither; the evaluator of onnx itself has both.
    made = model(op_type, dtype=dtype, layout=1, **attributes)
    x = np.swapaxes(X, 0, 1).astype(dtype)
    ys, *ends = run(made, x, by_reference=True)
    with jax.enable_x64(dtype == "float64"):
        config, variables = convert.from_onnx(made)
        assert config["time_axis"] == 1
        carry, outputs = reference.run(config, variables, x)
        assert_close(outputs, ys[:, :, 0], dtype)
        assert_close(convert.carry_to_onnx(config, carry, layout=1), ends, dtype)
        assert_close(convert.carry_from_onnx(config, *ends, layout=1), carry, dtype)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op_type", ["GRU", "LSTM"])
def test_constant_initial_states(op_type: str, direction: str) -> None:
    sides = 2 if direction == "bidirectional" else 1
    one = np.tile(random(sides, 1, H), (1, 2, 1))
    made = model(op_type, {"initial_h": one}, direction=direction)
    x = X.astype(np.float32)
    ys, *_ = run(made, x)
    config, variables = convert.from_onnx(made)
    leaf = config["layer"] if sides == 2 else config
    assert leaf["learned_carry"] is True
    assert_close(reference.run(config, variables, x)[1], joined(ys))
    assert_close(registry.build(config).apply(variables, None, x)[1], joined(ys))

    differing = random(sides, 2, H)
    made = model(op_type, {"initial_h": differing}, direction=direction)
    ys, *_ = run(made, x)
    with pytest.raises(ConversionError, match="initial_state=False"):
        convert.from_onnx(made)
    config, variables = convert.from_onnx(made, initial_state=False)
    carry = convert.initial_carry_from_onnx(made)
    assert_close(reference.run(config, variables, x, carry)[1], joined(ys))
    assert convert.initial_carry_from_onnx(model(op_type)) is None
    zeros = model(op_type, {"initial_h": np.zeros((1, 2, H), np.float32)})
    assert "learned_carry" not in convert.from_onnx(zeros)[0]


def test_weights_computed_from_constants_and_from_inputs(onnx: Any) -> None:
    made = model("RNN")
    weight = next(t for t in made.graph.initializer if t.name == "R")
    weight.name = "stored"
    axes = onnx.helper.make_node("Transpose", ["stored"], ["turned"], perm=[0, 2, 1])
    made.graph.node.insert(0, onnx.helper.make_node("Identity", ["turned"], ["R"]))
    made.graph.node.insert(0, axes)
    x = X.astype(np.float32)
    ys, _ = run(made, x)
    config, variables = convert.from_onnx(made)
    assert_close(reference.run(config, variables, x)[1], joined(ys))

    axes.input[0] = "X"
    made.graph.node[0].input[0] = "X"
    with pytest.raises(ConversionError, match=r"the weight R .* depends on the inputs"):
        convert.from_onnx(made)


@pytest.mark.parametrize(
    "names",
    [
        ["Tanh"],
        ["Relu"],
        ["Softsign"],
        ["Softplus"],
        ["Elu"],
        ["LeakyRelu"],
        ["Sigmoid"],
        ["HardSigmoid"],
        ["Affine"],
        ["ScaledTanh"],
        ["ThresholdedRelu"],
    ],
)
def test_activations(names: list[str]) -> None:
    alphas = {"HardSigmoid": [1 / 6], "Affine": [1.0], "ThresholdedRelu": [0.0]}
    alphas |= {"ScaledTanh": [1.0], "Elu": [1.0], "LeakyRelu": [0.01]}
    betas = {"HardSigmoid": [0.5], "Affine": [0.0], "ScaledTanh": [1.0]}
    options = {
        key: values[names[0]]
        for key, values in (("activation_alpha", alphas), ("activation_beta", betas))
        if names[0] in values
    }
    made = model("RNN", activations=names, **options)
    x = X.astype(np.float32)
    ys, _ = run(made, x)
    config, variables = convert.from_onnx(made)
    assert_close(registry.build(config).apply(variables, None, x)[1], joined(ys))
    assert set(activations._ONNX) >= {names[0].lower()}


def test_parameters_go_to_the_functions_that_have_them() -> None:
    made = model(
        "GRU",
        activations=["HardSigmoid", "LeakyRelu"],
        activation_alpha=[1 / 6, 0.01],
        activation_beta=[0.5],
        linear_before_reset=1,
    )
    x = X.astype(np.float32)
    ys, _ = run(made, x)
    config, variables = convert.from_onnx(made)
    assert (config["gate_fn"], config["activation_fn"]) == ("hard_sigmoid", "leaky_relu")
    assert_close(registry.build(config).apply(variables, None, x)[1], joined(ys))


def test_peepholes_of_zero() -> None:
    made = model("LSTM", {"P": np.zeros((1, 3 * H), np.float32)})
    x = X.astype(np.float32)
    config, variables = convert.from_onnx(made)
    assert_close(reference.run(config, variables, x)[1], joined(run(made, x)[0]))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("peepholes", "coupled"), [(True, False), (False, True), (True, True)], ids=str
)
def test_peepholes_and_coupled_gates(peepholes: bool, coupled: bool, direction: str) -> None:
    sides = 2 if direction == "bidirectional" else 1
    extra = {"P": random(sides, 3 * H)} if peepholes else {}
    made = model("LSTM", extra, direction=direction, input_forget=int(coupled))
    x = X.astype(np.float32)
    config, variables = convert.from_onnx(made)
    leaf = config.get("layer", config)
    assert (leaf.get("peepholes", False), leaf.get("coupled_gates", False)) == (peepholes, coupled)
    _, ys = registry.build(config).apply(variables, None, x)
    assert_close(ys, joined(run(made, x)[0]))
    states = random(sides, 2, H), random(sides, 2, H, seed=6)
    carry = convert.carry_from_onnx(config, *states)
    back = convert.carry_to_onnx(config, carry)
    for one, other in zip(back, states, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore")  # of the exporter about itself
def test_what_torch_exports(onnx: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(3, H, 2, bidirectional=True)
    path = tmp_path / "lstm.onnx"
    inputs = torch.from_numpy(X.astype(np.float32))
    torch.onnx.export(module, (inputs,), str(path), dynamo=False)
    nodes = [node.name for node in onnx.load(path).graph.node if node.op_type == "LSTM"]
    with pytest.raises(ConversionError, match="`nodes`"):
        convert.from_onnx(path)
    config, variables = convert.from_onnx(path, nodes)
    with torch.no_grad():
        expected = module(inputs)[0].numpy()
    assert_close(reference.run(config, variables, X.astype(np.float32))[1], expected)
