"""PyTorch's GRU, LSTM and RNN: modules, state dicts and safetensors files."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from zoo.recurrent.convert import carries
from zoo.recurrent.convert.cells import Cell, fold_biases, fuse_gates, split_gates, transposed
from zoo.recurrent.convert.errors import ConversionError, refuse
from zoo.recurrent.convert.layout import assemble, disassemble, require_functions
from zoo.recurrent.convert.plan import plan_of
from zoo.recurrent.convert.source import Source, as_numpy, count_gates
from zoo.recurrent.convert.torch_sources import (
    check_state_dict,
    read_safetensors,
    recurrent_module,
    weights_of,
)

# The order in which torch fuses the gates, which is ours as well.
_ORDER = {"gru": ("r", "z", "n"), "lstm": ("i", "f", "g", "o"), "elman": ("",)}
_KIND_OF = {1: "elman", 3: "gru", 4: "lstm"}
_KINDS = tuple(_ORDER)


def from_torch(
    source: Any,
    *,
    prefix: str = "",
    nonlinearity: str | None = None,
    batch_first: bool | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts a `torch.nn` GRU, LSTM or RNN of any depth to a layer of this project.

    Layers, directions, `bias`, `proj_size` and, where the source is a module, `nonlinearity` and
    `batch_first` are read off the source. A state dict does not say the last two: give them.
    The cells `torch.nn.GRUCell`, `LSTMCell` and `RNNCell` convert as a layer of one direction.
    The two biases that torch keeps for each gate are added where the equations add them. Dropout
    between layers, which only a module tells, becomes the `dropout_rate` of the stack.

    Weights that a module computes from others (`weight_norm`, `spectral_norm`,
    `torch.nn.utils.parametrize`, `prune`) become what they are in evaluation.

    Args:
        source: a module, compiled or not; or a state dict (name → array of any library, torch is
            not needed); or the path of a `.safetensors` file, of which only the keys under `prefix`
            are read.
        prefix: where the layer lies in a larger module or state dict, `"encoder.rnn"`.
        nonlinearity: "tanh" (the default) or "relu", of a `torch.nn.RNN`'s state dict.
        batch_first: True for inputs (B, T, D) and `time_axis=1`; by default False, (T, B, D).

    Returns:
        The config that `registry.build` takes, and the variables `{"params": ...}` of that layer,
        in the dtype of the source.

    Raises:
        ConversionError: a key is missing, left over, or of another shape than the others imply.
            A file of another format: it may hold pickles, which are never opened. A module with a
            `forward` of its own, one in TorchScript, or quantised; a whole checkpoint.
        TypeError: `source` is none of the above.

    Example:
        >>> state_dict = {
        ...     "rnn.weight_ih_l0": np.ones((6, 3), np.float32),
        ...     "rnn.weight_hh_l0": np.ones((6, 2), np.float32),
        ...     "head.weight": np.ones((1, 2), np.float32),
        ... }
        >>> config, variables = from_torch(state_dict, prefix="rnn", batch_first=True)
        >>> config
        {'name': 'scan_gru', 'features': 2, 'use_bias': False, 'time_axis': 1}
        >>> variables["params"]["ir"]["kernel"].shape
        (3, 2)
    """
    dropout = 0.0
    if isinstance(source, Mapping):
        origin = "torch state dict"
        check_state_dict(source, prefix)
        reader = Source(source, origin, prefix)
    elif isinstance(source, str | os.PathLike):
        origin = f"safetensors file {Path(source).name}"
        reader = Source(read_safetensors(source, prefix), origin, prefix)
    else:
        module = recurrent_module(source, prefix)
        name = type(module).__name__
        origin = f"torch {name}"
        reader = Source(weights_of(module), origin)
        told = {
            "nonlinearity": (nonlinearity, _nonlinearity(module)),
            "batch_first": (batch_first, getattr(module, "batch_first", False)),
        }
        for option, (given, own) in told.items():
            if given is not None and given != own:
                raise ConversionError(
                    f"torch {name}: {option}={given!r} was given; the module has {own!r}. "
                    "Leave it out: a module knows it."
                )
        nonlinearity, batch_first = told["nonlinearity"][1], told["batch_first"][1]
        dropout = getattr(module, "dropout", 0.0)
    if nonlinearity not in (None, "tanh", "relu"):
        raise ValueError(f"nonlinearity: expected 'tanh' or 'relu'; got {nonlinearity!r}.")
    layers = _read_layers(reader, nonlinearity)
    if nonlinearity is not None and layers[0][0].kind != "elman":
        raise ConversionError(
            f"{origin}: nonlinearity={nonlinearity!r} is an option of torch.nn.RNN; these weights "
            f"have the shapes of a torch.nn.{layers[0][0].kind.upper()}. Leave it out."
        )
    return assemble(layers, time_axis=1 if batch_first else 0, dropout_rate=dropout)


def to_torch(
    config: Mapping[str, Any],
    variables: Mapping[str, Any],
    *,
    prefix: str = "",
    cell: bool = False,
) -> dict[str, Any]:
    """Converts a layer to the state dict of the `torch.nn` module that computes the same.

    Args:
        config: of the layer, as `registry.build` takes it.
        variables: of the layer.
        prefix: put before every key, `"encoder.rnn"`.
        cell: name the keys for `torch.nn.GRUCell`, `LSTMCell` or `RNNCell`.

    Returns:
        The state dict that `load_state_dict(strict=True)` of a module of that shape takes: torch
        tensors where the program has imported torch, else NumPy arrays (which
        `safetensors.numpy.save_file` takes). Each gate has one bias here and two there; the second
        one is zero.

    Raises:
        ConversionError: torch has no module for this layer, or config and variables disagree.

    Example:
        >>> state_dict = {
        ...     "weight_ih_l0": np.ones((4, 3), np.float32),
        ...     "weight_hh_l0": np.ones((4, 4), np.float32),
        ... }
        >>> tuple(to_torch(*from_torch(state_dict))["weight_ih_l0"].shape)
        (4, 3)
    """
    plan, layers = disassemble(config, variables, "torch", _KINDS)
    require_functions(layers, "torch", ("tanh", "relu") if plan.kind == "elman" else ("tanh",))
    first = layers[0][0]
    if plan.directions == 2 and plan.merge != "concat":
        raise refuse(
            f"merge={plan.merge!r} to torch",
            "torch.nn concatenates the outputs of its two directions.",
            "Keras and Flax merge in other ways.",
        )
    if plan.reverse:
        raise refuse(
            "reverse=True to torch",
            "torch.nn runs backwards only as the second of two directions.",
            "Leave it out of the config and flip the sequences.",
        )
    if first.projection is not None and first.outputs >= first.features:
        raise refuse(
            f"projection={first.outputs} of features={first.features} to torch",
            "torch.nn.LSTM needs proj_size < hidden_size.",
            "Keep the layer, or train a narrower projection.",
        )
    if cell and (len(layers) > 1 or len(layers[0]) > 1 or first.projection is not None):
        raise refuse(
            f"{len(layers)} layers of {len(layers[0])} directions to a torch cell",
            "a cell is one layer of one direction without projection.",
            "Leave out `cell`.",
        )
    if prefix and not prefix.endswith("."):
        prefix += "."
    state = {}
    for index, sides in enumerate(layers):
        for side, ending in zip(sides, ("", "_reverse"), strict=False):
            suffix = "" if cell else f"_l{index}{ending}"
            for key, array in _write_cell(side).items():
                state[f"{prefix}{key}{suffix}"] = _as_tensor(array)
    return state


def carry_from_torch(config: Mapping[str, Any], state: Any) -> Any:
    """Converts the hidden state of a torch module to the carry of the layer.

    Args:
        config: of the layer.
        state: h_n of shape (layers · directions, *batch, H), or (h_n, c_n) for an LSTM.

    Returns:
        The carry: (c, h) for an LSTM, one entry per layer for a stack, (forward, backward) for
        two directions.

    Raises:
        ConversionError: another number of states, or another shape, than the config says.

    Example:
        >>> c, h = carry_from_torch({"name": "scan_lstm", "features": 2}, (np.zeros((1, 5, 2)),
        ...                                                                np.ones((1, 5, 2))))
        >>> c.shape, float(c.sum())
        ((5, 2), 10.0)
    """
    plan = plan_of(config)
    pair = isinstance(state, tuple | list)
    if pair != (plan.kind == "lstm") or (pair and len(state) != 2):
        wanted = "(h_n, c_n)" if plan.kind == "lstm" else "h_n"
        raise ConversionError(f"torch state: expected {wanted}; got a {type(state).__name__}.")
    arrays = [as_numpy(a, "torch state") for a in (state if pair else (state,))]
    total = plan.num_layers * plan.directions
    for name, array in zip(("h_n", "c_n"), arrays, strict=False):
        if array.ndim < 2 or array.shape[0] != total:
            raise ConversionError(
                f"torch state: {name} has shape {array.shape}; expected ({total}, *batch, H), "
                f"{plan.num_layers} layers x {plan.directions} directions first."
            )
    flat = [carries.State(*(array[i] for array in arrays)) for i in range(total)]
    states = [flat[i : i + plan.directions] for i in range(0, total, plan.directions)]
    return carries.to_ours(config, carries.check(plan, states, "torch state"))


def carry_to_torch(config: Mapping[str, Any], carry: Any) -> Any:
    """Converts the carry of a layer to the hidden state that the torch module takes and returns.

    Args:
        config: of the layer.
        carry: of the layer.

    Returns:
        h of shape (layers · directions, *batch, H), or (h, c) for an LSTM: torch tensors where the
        program has imported torch, else NumPy arrays.

    Raises:
        ConversionError: the carry is not one of the layer that `config` builds.

    Example:
        >>> h, c = carry_to_torch({"name": "scan_lstm", "features": 2}, (np.ones((5, 2)),) * 2)
        >>> tuple(h.shape)
        (1, 5, 2)
    """
    if plan_of(config).kind not in _KINDS:
        raise refuse(f"a carry of {config['name']}", "torch has no such cell.", "")
    flat = [state for layer in carries.from_ours(config, carry) for state in layer]
    arrays = [np.stack(field) for field in zip(*flat, strict=True) if field[0] is not None]
    tensors = tuple(map(_as_tensor, arrays))
    return tensors if len(tensors) == 2 else tensors[0]


def _nonlinearity(module: Any) -> str | None:
    modes = {"RNN_TANH": "tanh", "RNN_RELU": "relu"}
    return modes.get(getattr(module, "mode", ""), getattr(module, "nonlinearity", None))


def _read_layers(source: Source, nonlinearity: str | None) -> list[list[Cell]]:
    bare = "weight_hh" in source or "weight_ih" in source
    depth = [
        int(found[1])
        for key in source
        if (found := re.fullmatch(r"weight_[ih]h_l(\d+)(_reverse)?", key))
    ]
    sides = ("", "_reverse") if any(key.endswith("_reverse") for key in source) else ("",)
    layers, inputs = [], None
    for index in range(1 if bare else max(depth, default=0) + 1):
        layers.append(
            [
                _read_cell(source, "" if bare else f"_l{index}{side}", inputs, nonlinearity)
                for side in sides
            ]
        )
        inputs = layers[0][0].outputs * len(sides)
    source.finish()
    return layers


def _read_cell(source: Source, suffix: str, inputs: int | None, nonlinearity: str | None) -> Cell:
    keys = {name: name + suffix for name in ("weight_ih", "weight_hh", "weight_hr")}
    projected = keys["weight_hr"] in source
    shape = source.shape(keys["weight_hr"] if projected else keys["weight_hh"])
    if len(shape) != 2:
        source.mismatch(keys["weight_hr" if projected else "weight_hh"], "two axes")
    outputs, features = shape if projected else (shape[1], shape[1])
    gates = count_gates(source, keys["weight_hh"], 0, features)
    kind = _KIND_OF[gates]
    if projected and kind != "lstm":
        source.mismatch(keys["weight_hh"], f"{(4 * features, outputs)}, an LSTM's, with weight_hr")
    if inputs is None:
        inputs = (source.shape(keys["weight_ih"]) or (0,))[-1]
    order = _ORDER[kind]
    blocks = {
        name: split_gates(source.take(keys[name], (gates * features, width)), order, 0)
        for name, width in (("weight_ih", inputs), ("weight_hh", outputs))
    }
    biases: dict[str, Any] = {}
    if f"bias_ih{suffix}" in source or f"bias_hh{suffix}" in source:
        biases = fold_biases(
            kind,
            *(
                split_gates(source.take(f"bias_{s}{suffix}", (gates * features,)), order)
                for s in ("ih", "hh")
            ),
        )
    return Cell(
        kind,
        transposed(blocks["weight_ih"]),
        transposed(blocks["weight_hh"]),
        projection=source.take(keys["weight_hr"], shape).T if projected else None,
        options={"activation_fn": "relu"} if kind == "elman" and nonlinearity == "relu" else {},
        **biases,
    )


def _write_cell(cell: Cell) -> dict[str, np.ndarray]:
    order = _ORDER[cell.kind]
    state = {
        "weight_ih": fuse_gates(transposed(cell.kernels), order, 0),
        "weight_hh": fuse_gates(transposed(cell.recurrent), order, 0),
    }
    biases = cell.biases()
    if biases is not None:
        state |= {
            name: fuse_gates(b, order)
            for name, b in zip(("bias_ih", "bias_hh"), biases, strict=True)
        }
    if cell.projection is not None:
        state["weight_hr"] = cell.projection.T
    return state


def _as_tensor(array: np.ndarray) -> Any:
    torch = sys.modules.get("torch")
    # Transposed views have to become contiguous: safetensors would store the wrong order.
    array = np.array(array, order="C")
    if torch is None:
        return array
    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
