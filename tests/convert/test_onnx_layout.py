"""ONNX nodes of layout 1, (B, T, D), are the same layers as those of layout 0."""

from typing import Any

import jax
import numpy as np
import pytest

from zoo.recurrent import convert

from . import golden
from .comparison import assert_same

CASES = [
    pytest.param(case, id=f"{case['shape']['cell']}-{case['shape']['directions']}")
    for case in golden.load("onnx")
    if case["shape"]["layers"] == 1
]
CASES += [
    pytest.param(case, id=f"stack of {case['shape']['cell']}")
    for case in golden.load("onnx")
    if case["shape"]["directions"] == 2
]


def batch_first(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**node, "attributes": {**node["attributes"], "layout": 1}} for node in nodes]


def swapped(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.swapaxes(x, 0, 1), tree)


@pytest.mark.parametrize("case", CASES)
def test_weights_and_states(case: dict[str, Any]) -> None:
    nodes, names = case["arguments"]
    config, variables = convert.from_onnx(nodes, names)
    turned, same = convert.from_onnx(batch_first(nodes), names)
    assert turned == {**config, "time_axis": 1}
    assert_same(same, variables)

    carry = convert.carry_from_onnx(config, *case["state"])
    states = [swapped(state) for state in case["state"]]
    assert_same(convert.carry_from_onnx(turned, *states, layout=1), carry)
    given = convert.carry_to_onnx(config, carry)
    assert_same(convert.carry_to_onnx(turned, carry, layout=1), swapped(given))


@pytest.mark.parametrize("case", [case for case in CASES if case.values[0]["shape"]["layers"] == 1])
def test_constant_initial_states(case: dict[str, Any]) -> None:
    (node,), names = case["arguments"]
    directions = case["shape"]["directions"]
    h = np.tile(np.arange(4, dtype=np.float32), (directions, 2, 1))
    first = {**node, "inputs": {**node["inputs"], "initial_h": h}}
    second = {**node, "inputs": {**node["inputs"], "initial_h": np.swapaxes(h, 0, 1)}}
    config, variables = convert.from_onnx(first, names)
    turned, same = convert.from_onnx(batch_first([second]), names)
    assert turned == {**config, "time_axis": 1}
    assert_same(same, variables)
    expected = convert.initial_carry_from_onnx(first, names)
    assert_same(convert.initial_carry_from_onnx(batch_first([second]), names), expected)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(expected))
