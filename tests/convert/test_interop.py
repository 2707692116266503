"""Every library that is installed computes what the converted layer computes, both ways."""

import contextlib
import itertools
import json
from typing import Any

import jax
import pytest

from zoo.recurrent import convert

from . import reference
from .comparison import assert_close, compiled, neutral
from .live import LENGTHS, LIBRARIES, Shape, sequences, states

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

PACKAGES = {
    "torch": ["torch"],
    "keras": ["keras"],
    "haiku": ["haiku"],
    "equinox": ["equinox"],
    "linen": ["flax"],
    "nnx": ["flax"],
    "onnx": ["onnx", "onnxruntime"],
}


def grid() -> list[Any]:
    cases = []
    for name, library in LIBRARIES.items():
        # One layer of one direction, and the whole of it: what is between has no code of its own.
        wholes = ((1, 1, "float32"), (3, 2, "float64" if library.float64 else "float32"))
        choices = itertools.product(library.cells, wholes, library.biases)
        for cell, (layers, directions, dtype), bias in choices:
            shape = Shape(cell, layers, directions, bias, dtype)
            cases.append(pytest.param(name, shape, id=f"{name}-{shape}"))
    return cases


@pytest.fixture(autouse=True)
def foreign_code_is_less_strict():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def precision(dtype: str) -> Any:
    return jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()


@pytest.mark.parametrize(("name", "shape"), grid())
def test_same_outputs_and_carries_both_ways(name: str, shape: Shape) -> None:
    for package in PACKAGES[name]:
        pytest.importorskip(package)
    library = LIBRARIES[name]
    with precision(shape.dtype):
        x = sequences(shape.dtype)
        start = states(shape)
        network = library.build(shape)
        config, variables = library.convert(convert, network)
        # Every layer here takes (B, T, D), so that libraries can share what is compiled.
        assert config.get("time_axis", 1) in (1, -2)
        config = {**config, "time_axis": 1}
        apply = compiled(json.dumps(config))
        carry_from = getattr(convert, f"carry_from_{name}")
        foreign_start = library.state(shape, start)
        carry = carry_from(config, *(foreign_start if name == "onnx" else [foreign_start]))
        assert_close(neutral(shape, carry), start, shape.dtype)

        back = library.load(convert, shape, config, variables) if name != "onnx" else network
        for lengths in (None, LENGTHS):
            ys, end = library.run(network, shape, x, lengths, start)
            final, outputs = apply(variables, carry, x, seq_lengths=lengths)
            assert_close(outputs, ys, shape.dtype)
            assert_close(neutral(shape, final), end, shape.dtype)
            assert outputs.dtype == shape.dtype

            final, outputs = reference.run(config, variables, x, carry, lengths)
            assert_close(outputs, ys, shape.dtype)
            assert_close(neutral(shape, final), end, shape.dtype)

            assert_close(library.run(back, shape, x, lengths, start), (ys, end), shape.dtype)

        returned = getattr(convert, f"carry_to_{name}")(config, carry)
        if name not in ("torch", "keras", "onnx"):
            assert jax.tree.structure(returned) == jax.tree.structure(foreign_start)
        assert_close(returned, foreign_start, shape.dtype)
