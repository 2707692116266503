"""Keras 3: ConvLSTM1D, ConvLSTM2D and ConvLSTM3D, alone or in both directions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.recurrent.convert.cells import fuse_gates, split_gates
from zoo.recurrent.convert.errors import refuse
from zoo.recurrent.convert.keras_config import direction
from zoo.recurrent.convert.layout import in_common_dtype
from zoo.recurrent.convert.plan import DEFAULTS
from zoo.recurrent.convert.source import Source, as_jax

# Keras has the forget gate second, the layer here has it third.
_THEIRS, _OURS = "ifgo", "igfo"


def read(
    source: Source, plan: Sequence[Mapping[str, Mapping[str, Any]]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the config and the variables of one convolutional layer.

    Args:
        source: its arrays, "layers.0.forward.kernel" and so on; all of them are used up.
        plan: direction → cell of every layer, as ``plan_layers`` gives it.

    Raises:
        ConversionError: there are several layers, or one with its channels first.
    """
    if len(plan) != 1:
        raise refuse(
            f"{len(plan)} Keras layers, ConvLSTM among them,",
            "what lies between them cannot be told from their weights.",
            "Convert them one by one.",
        )
    (layer,) = plan
    found = {side: _read_side(source, f"layers.0.{side}", cell) for side, cell in layer.items()}
    source.finish()
    configs = [config for config, _ in found.values()]
    trees: Any = {side: tree for side, (_, tree) in found.items()}
    if any(config != configs[0] for config in configs):
        raise refuse(
            "Bidirectional around two ConvLSTM layers that are not equal",
            "'bidirectional' repeats one layer.",
            "Convert them one by one.",
        )
    config = configs[0]
    trees = in_common_dtype(trees, config)
    if len(found) == 2:
        config = {"name": "bidirectional", "layer": config}
        merge = layer["forward"]["merge"]
        config |= {} if merge == "concat" else {"merge": merge}
    else:
        trees = trees["forward"]
        config |= {"reverse": True} if direction(plan) else {}
    return {**config, "time_axis": 1}, {"params": as_jax(trees)}


def _read_side(
    source: Source, path: str, cell: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    given, features = cell["convolution"], cell["units"]
    if given.get("data_format", "channels_last") != "channels_last":
        raise refuse(
            f"a Keras ConvLSTM with data_format={given['data_format']!r}",
            "the features come last here.",
            "The weights are the same: write 'channels_last', and move the channels of xs.",
        )
    axes = len(source.shape(f"{path}.kernel")) - 2
    size, strides, dilation = (
        _each(given.get(name, default), axes)
        for name, default in (("kernel_size", 3), ("strides", 1), ("dilation_rate", 1))
    )
    inputs = source.shape(f"{path}.kernel")[-2]
    kernel = source.take(f"{path}.kernel", (*size, inputs, 4 * features))
    recurrent = source.take(f"{path}.recurrent_kernel", (*size, features, 4 * features))
    tree: dict[str, Any] = {"ih": {"kernel": _ours(kernel)}, "hh": {"kernel": _ours(recurrent)}}
    if cell["use_bias"]:
        bias = source.take(f"{path}.bias", (4 * features,))
        tree["ih"]["bias"] = _ours(bias)
        tree["hh"]["bias"] = np.zeros_like(bias)
    config = {
        "name": "scan_conv_lstm",
        "features": features,
        "kernel_size": size,
        "padding": given.get("padding", "valid").upper(),
        "forget_bias": 0.0,
    }
    config |= {"strides": strides} if set(strides) != {1} else {}
    config |= {"dilation": dilation} if set(dilation) != {1} else {}
    config |= {} if cell["use_bias"] else {"use_bias": False}
    options = cell["options"].items()
    return config | {key: x for key, x in options if x != DEFAULTS.get(key)}, tree


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _ours(array: np.ndarray) -> np.ndarray:
    return fuse_gates(split_gates(array, _THEIRS), _OURS)
