"""What cannot be converted exactly is refused, with what was found and what was expected."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.recurrent import convert
from zoo.recurrent.convert import ConversionError

from .plain_weights import GRU_WEIGHTS, keras, onnx, torch_gru, without, zeros

LSTM = {"ii": {"kernel": zeros(3, 2)}, "hi": {"kernel": zeros(2, 2)}}
CELL = {"weight_ih": zeros(6, 3), "weight_hh": zeros(6, 2)}

FROM = {
    "missing": (
        lambda: convert.from_torch(without(torch_gru(), "bias_hh_l0")),
        ["'bias_hh_l0'", "(6,)", "missing"],
    ),
    "missing layer": (
        lambda: convert.from_torch(without(torch_gru(3), "weight_hh_l1")),
        ["'weight_hh_l1'", "missing"],
    ),
    "leftover": (
        lambda: convert.from_torch({**torch_gru(), "head.weight": zeros(1, 2)}),
        ["'head.weight'", "(1, 2)", "left over", "place"],
    ),
    "leftover under prefix": (
        lambda: convert.from_torch({**torch_gru(prefix="a."), "a.x": zeros(4)}, prefix="a"),
        ["'a.x'", "(4,)", "left over"],
    ),
    "leftover bias": (
        lambda: convert.from_torch({**torch_gru(bias=False), "bias_ih_l0": zeros(6)}),
        ["'bias_hh_l0'", "missing"],
    ),
    "shape": (
        lambda: convert.from_torch({**torch_gru(), "weight_ih_l0": zeros(8, 3)}),
        ["'weight_ih_l0'", "(8, 3)", "(6, 3)"],
    ),
    "shape of second layer": (
        lambda: convert.from_torch({**torch_gru(2), "weight_ih_l1": zeros(6, 3)}),
        ["'weight_ih_l1'", "(6, 3)", "(6, 2)"],
    ),
    "no gates": (
        lambda: convert.from_torch({**torch_gru(), "weight_hh_l0": zeros(5, 2)}),
        ["'weight_hh_l0'", "(5, 2)", "6 (GRU)", "8 (LSTM)"],
    ),
    "vector": (
        lambda: convert.from_torch({**torch_gru(), "weight_hh_l0": zeros(6)}),
        ["'weight_hh_l0'", "(6,)", "two axes"],
    ),
    "needs prefix": (
        lambda: convert.from_torch(torch_gru(prefix="encoder.rnn.")),
        ["'weight_hh_l0'", "prefix", "'encoder.rnn.'"],
    ),
    "wrong prefix": (
        lambda: convert.from_torch(torch_gru(prefix="encoder."), prefix="decoder"),
        ["'decoder.", "'encoder.'"],
    ),
    "integers": (
        lambda: convert.from_torch({**torch_gru(), "weight_ih_l0": np.zeros((6, 3), np.int8)}),
        ["'weight_ih_l0'", "int8", "floating"],
    ),
    "no array": (
        lambda: convert.from_torch({**torch_gru(), "weight_ih_l0": np.full((6, 3), None)}),
        ["'weight_ih_l0'", "array of numbers"],
    ),
    "projected GRU": (
        lambda: convert.from_torch({**torch_gru(), "weight_hr_l0": zeros(2, 2)}),
        ["'weight_hh_l0'", "(6, 2)", "(8, 2)"],
    ),
    "nonlinearity of a GRU": (
        lambda: convert.from_torch(torch_gru(), nonlinearity="relu"),
        ["nonlinearity", "GRU"],
    ),
    "pickle": (
        lambda: convert.from_torch("model.pt"),
        ["model.pt", "pickle", "weights_only=True", ".safetensors"],
    ),
    "keras, too few": (
        lambda: convert.from_keras(GRU_WEIGHTS[:2], keras()),
        ["expected 3", "layers.0.forward.bias", "found 2", "(2, 6)"],
    ),
    "keras, not built": (lambda: convert.from_keras([], keras()), ["found 0", "Call the layer"]),
    "keras, shape": (
        lambda: convert.from_keras([*GRU_WEIGHTS[:2], zeros(6)], keras()),
        ["layers.0.forward.bias", "(6,)", "(2, 6)"],
    ),
    "keras, other layer": (
        lambda: convert.from_keras([], keras("Conv1D")),
        ["Conv1D", "no exact mapping", "'GRU'"],
    ),
    "keras, channels first": (
        lambda: convert.from_keras(
            [zeros(3, 2, 8), zeros(3, 2, 8), zeros(8)],
            keras("ConvLSTM1D", filters=2, data_format="channels_first"),
        ),
        ["channels_first", "channels of xs"],
    ),
    "keras, several convolutional layers": (
        lambda: convert.from_keras(
            [zeros(3, 2, 8), zeros(3, 2, 8), zeros(8)] * 2,
            [keras("ConvLSTM1D", filters=2)] * 2,
        ),
        ["2 Keras layers", "one by one"],
    ),
    "keras, unknown activation": (
        lambda: convert.from_keras(GRU_WEIGHTS, keras(activation="hard_shrink")),
        ["'hard_shrink'", "'relu'"],
    ),
    "keras, gate that is not symmetric": (
        lambda: convert.from_keras(
            GRU_WEIGHTS, keras(recurrent_activation="relu", reset_after=False)
        ),
        ["'relu'", "sigmoid", "reset_after=True"],
    ),
    "keras, two outputs": (
        lambda: convert.from_keras([], keras("Bidirectional", merge_mode=None, layer=keras())),
        ["merge_mode=None", "concat"],
    ),
    "keras, no config": (lambda: convert.from_keras([], {"units": 3}), ["'class_name'"]),
    "keras, alternating": (
        lambda: convert.from_keras(
            [*GRU_WEIGHTS, zeros(2, 6), *GRU_WEIGHTS[1:]],
            [keras(go_backwards=True, return_sequences=True)] * 2,
        ),
        ["go_backwards=True", "one by one"],
    ),
    "unequal layers": (
        lambda: convert.from_equinox([CELL, {"weight_ih": zeros(8, 2), "weight_hh": zeros(8, 2)}]),
        ["layer 1", "'lstm'", "'gru'", "one by one"],
    ),
    "layers that do not fit": (
        lambda: convert.from_equinox([CELL, CELL]),
        ["layer 1", "input features=3", "input features=2"],
    ),
    "unequal directions": (
        lambda: convert.from_equinox([CELL], backward=[CELL, CELL]),
        ["[1, 2]"],
    ),
    "directions of unequal width": (
        lambda: convert.from_equinox(
            CELL, backward={"weight_ih": zeros(9, 3), "weight_hh": zeros(9, 3)}
        ),
        ["layer 0 with features=3", "need features=2"],
    ),
    "equinox, one gate": (
        lambda: convert.from_equinox({"weight_ih": zeros(2, 3), "weight_hh": zeros(2, 2)}),
        ["'weight_hh'", "(2, 2)", "(6, 2)", "(8, 2)"],
    ),
    "equinox, half a bias": (
        lambda: convert.from_equinox({**CELL, "bias": zeros(6)}),
        ["'bias_n'", "(2,)", "missing"],
    ),
    "haiku, two cores": (
        lambda: convert.from_haiku(
            {"lstm/linear": {"w": zeros(5, 8)}, "lstm_1/linear": {"w": zeros(4, 8)}}
        ),
        ["'lstm'", "'lstm_1'", "`modules`"],
    ),
    "haiku, leftover": (
        lambda: convert.from_haiku({"gru": {"w_h": zeros(2, 6)}, "linear": {"b": zeros(2)}}),
        ["'linear/b'", "(2,)", "left over"],
    ),
    "haiku, shape": (
        lambda: convert.from_haiku(
            {"gru": {"w_i": zeros(3, 6), "w_h": zeros(2, 8), "b": zeros(6)}}
        ),
        ["'gru/w_h'", "(2, 8)", "(2, 6)"],
    ),
    "linen, path": (
        lambda: convert.from_linen({"params": {"a": {"cell": LSTM}}}, path="b/cell"),
        ["'b/cell'", "['a']"],
    ),
    "linen, other cell": (
        lambda: convert.from_linen({"params": {"cell": {"ih": LSTM["ii"]}}}),
        ["'cell'", "['ih']", "'hr'"],
    ),
    "linen, shape": (
        lambda: convert.from_linen(
            {"params": {"i": {"kernel": zeros(3, 2), "bias": zeros(3)}, "h": LSTM["hi"]}}
        ),
        ["'i/bias'", "(3,)", "(2,)"],
    ),
    "nnx, missing": (
        lambda: convert.from_nnx({"cell": LSTM}),
        ["'if_/kernel'", "missing"],
    ),
    "onnx, clip": (lambda: convert.from_onnx(onnx(clip=1.0)), ["clip=1.0", "no exact mapping"]),
    "onnx, unequal activations": (
        lambda: convert.from_onnx(onnx("LSTM", activations=["Sigmoid", "Tanh", "Relu"])),
        ["g=tanh", "h=relu"],
    ),
    "onnx, parameters": (
        lambda: convert.from_onnx(onnx("RNN", activations=["LeakyRelu"], activation_alpha=[0.3])),
        ["LeakyRelu(alpha=0.3", "LeakyRelu(0.01)"],
    ),
    "onnx, unknown activation": (
        lambda: convert.from_onnx(onnx("RNN", activations=["Foo"])),
        ["Foo"],
    ),
    "onnx, gate that is not symmetric": (
        lambda: convert.from_onnx(onnx(activations=["Relu", "Tanh"])),
        ["relu", "linear_before_reset=1"],
    ),
    "onnx, number of activations": (
        lambda: convert.from_onnx(onnx(activations=["Tanh"])),
        ["expected 2"],
    ),
    "onnx, direction": (
        lambda: convert.from_onnx(onnx(direction="sideways")),
        ["'sideways'", "'reverse'"],
    ),
    "onnx, shape": (
        lambda: convert.from_onnx(onnx(inputs={"B": zeros(1, 6)})),
        ["'B'", "(1, 6)", "(1, 12)"],
    ),
    "onnx, hidden size": (
        lambda: convert.from_onnx(onnx(hidden_size=3)),
        ["'W'", "(1, 6, 3)", "(1, 9, 3)"],
    ),
    "onnx, several": (lambda: convert.from_onnx([onnx(), onnx()]), ["`nodes`"]),
    "onnx, no such node": (
        lambda: convert.from_onnx({**onnx(), "name": "a"}, "b"),
        ["['b']", "['a']"],
    ),
    "onnx, state for each sequence": (
        lambda: convert.from_onnx(onnx(inputs={"initial_h": np.arange(4.0).reshape(1, 2, 2)})),
        ["initial_state=False", "initial_carry_from_onnx"],
    ),
}


@pytest.mark.parametrize("case", FROM)
def test_from_other_libraries(case: str) -> None:
    call, parts = FROM[case]
    with pytest.raises(ConversionError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["torch", "keras", "haiku", "nnx", "linen", "onnx"])
def test_objects_of_no_library(name: str) -> None:
    with pytest.raises(TypeError, match=f"from_{name}: expected .* got a object"):
        getattr(convert, f"from_{name}")(object())


class Evil:
    """What a pickle can do to whoever opens it."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.target),)

    def __init__(self, target: Path) -> None:
        self.target = str(target)


@pytest.mark.parametrize(
    ("name", "file", "package"),
    [
        ("torch", "model.pt", None),
        ("torch", "model.bin", None),
        ("torch", "model.safetensors", "safetensors"),
        ("onnx", "model.onnx", "onnx"),
    ],
)
def test_no_pickle_is_opened(tmp_path: Path, name: str, file: str, package: str | None) -> None:
    if package is not None:
        pytest.importorskip(package)
    opened = tmp_path / "opened"
    (tmp_path / file).write_bytes(pickle.dumps(Evil(opened)))
    with pytest.raises(ConversionError, match=f"{file}: expected "):
        getattr(convert, f"from_{name}")(tmp_path / file)
    assert not opened.exists()


def test_equinox_objects() -> None:
    with pytest.raises(TypeError, match="got object"):
        convert.from_equinox(object())
