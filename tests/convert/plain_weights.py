"""Small weights of other libraries as plain arrays of zeros."""

from typing import Any

import numpy as np

F32 = np.float32


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, F32)


def torch_gru(layers: int = 1, prefix: str = "", bias: bool = True) -> dict[str, np.ndarray]:
    state = {}
    for k in range(layers):
        state |= {f"{prefix}weight_ih_l{k}": zeros(6, 3 if k == 0 else 2)}
        state |= {f"{prefix}weight_hh_l{k}": zeros(6, 2)}
        if bias:
            state |= {f"{prefix}bias_ih_l{k}": zeros(6), f"{prefix}bias_hh_l{k}": zeros(6)}
    return state


def without(state: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in state.items() if k != key}


def keras(name: str = "GRU", **config: Any) -> dict[str, Any]:
    return {"class_name": name, "config": {"units": 2, **config}}


def onnx(op_type: str = "GRU", inputs: Any = (), **attributes: Any) -> dict[str, Any]:
    fused = {"GRU": 6, "LSTM": 8, "RNN": 2}[op_type]
    given = {"W": zeros(1, fused, 3), "R": zeros(1, fused, 2), **dict(inputs)}
    return {"op_type": op_type, "attributes": {"hidden_size": 2, **attributes}, "inputs": given}


GRU_WEIGHTS = [zeros(3, 6), zeros(2, 6), zeros(2, 6)]
