"""dm-haiku: parameters of LSTM, GRU and VanillaRNN cores."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.recurrent.convert import carries
from zoo.recurrent.convert.cells import Cell, fuse_gates, split_gates
from zoo.recurrent.convert.errors import ConversionError, refuse
from zoo.recurrent.convert.layout import assemble, disassemble, require_functions
from zoo.recurrent.convert.plan import plan_of
from zoo.recurrent.convert.source import Source, as_jax, flatten

_GRU, _LSTM = ("z", "r", "n"), ("i", "g", "f", "o")
_DEFAULT_NAMES = {"simplified_gru": "gru", "lstm": "lstm", "elman": "vanilla_rnn"}
# What hk.LSTM adds to its forget gate at every step, besides the bias.
_FORGET = 1.0


def from_haiku(
    params: Mapping[str, Mapping[str, Any]],
    modules: str | Sequence[str] | None = None,
    *,
    backward: str | Sequence[str] | None = None,
    time_axis: int = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts parameters of `hk.LSTM`, `hk.GRU` or `hk.VanillaRNN` to a layer of this project.

    `hk.GRU` applies its reset gate before the product, so it becomes `scan_simplified_gru`. The
    constant 1 that `hk.LSTM` adds to its forget gate goes into the bias. `hk.VanillaRNN` is
    `scan_elman` with `activation_fn="relu"`.

    Args:
        params: as `hk.transform(...).init` returns them: module name → name → array.
        modules: the name of the core, `"encoder/lstm"`, or the names of several cores, the lowest
            first, which become a stack. Not needed where `params` hold one core and nothing else.
        backward: the same for the cores that run backwards, where there are two directions.
        time_axis: of the layer; haiku's unrolls are time-major by default, as the layers here.

    Returns:
        The config that `registry.build` takes, and the variables `{"params": ...}` of that layer.

    Raises:
        ConversionError: no such core, or a parameter missing, left over or of another shape.
        TypeError: `params` is no mapping.

    Example:
        >>> linear = {"w": np.ones((5, 8), "float32"), "b": np.zeros(8, "float32")}
        >>> params = {"lstm/linear": linear}
        >>> config, variables = from_haiku(params)
        >>> config, variables["params"]["hf"]["bias"].tolist()
        ({'name': 'scan_lstm', 'features': 2}, [1.0, 1.0])
    """
    if not isinstance(params, Mapping):
        raise TypeError(
            "from_haiku: expected a mapping of parameters, as init returns it; got a "
            f"{type(params).__name__}."
        )
    flat = flatten(params)
    if modules is None:
        modules = _only_core(flat)
        strangers = [key for key in flat if not key.startswith(modules + "/")]
        Source({key: flat[key] for key in strangers}, "haiku params", "", "/").finish()
    sides = [_names(modules)] + ([_names(backward)] if backward is not None else [])
    if len({len(names) for names in sides}) > 1:
        raise ConversionError(
            f"from_haiku: expected as many backward cores as forward ones; got {sides}."
        )
    layers = [
        [_read_cell(Source(flat, "haiku params", name, "/")) for name in names]
        for names in zip(*sides, strict=True)
    ]
    return assemble(layers, time_axis=time_axis)


def to_haiku(
    config: Mapping[str, Any],
    variables: Mapping[str, Any],
    modules: Sequence[str] | str | None = None,
) -> dict[str, dict[str, Any]]:
    """Converts a layer to the parameters of haiku cores.

    Args:
        config: of the layer.
        variables: of the layer.
        modules: one name per core, the lowest layer first and forward before backward. By default
            the names that haiku gives: `lstm`, `lstm_1`, ....

    Returns:
        Module name → name → array, as `apply` of a transformed function takes them.

    Raises:
        ConversionError: haiku has no such core, or config and variables disagree.

    Example:
        >>> params = {"gru": {"w_i": np.ones((3, 6), "float32"), "w_h": np.ones((2, 6), "float32"),
        ...                   "b": np.zeros(6, "float32")}}
        >>> sorted(to_haiku(*from_haiku(params), modules="encoder/gru")["encoder/gru"])
        ['b', 'w_h', 'w_i']
    """
    plan, layers = disassemble(config, variables, "dm-haiku", tuple(_DEFAULT_NAMES))
    require_functions(layers, "dm-haiku", ("relu",) if plan.kind == "elman" else ("tanh",))
    cells = [cell for layer in layers for cell in layer]
    if cells[0].projection is not None:
        raise refuse("a projection to dm-haiku", "hk.LSTM has none.", "torch.nn.LSTM has one.")
    default = _DEFAULT_NAMES[plan.kind]
    names = _names(modules) if modules is not None else [default]
    if modules is None:
        names += [f"{default}_{index}" for index in range(1, len(cells))]
    if len(names) != len(cells):
        raise ConversionError(
            f"to_haiku: expected {len(cells)} module names, {plan.num_layers} layers x "
            f"{plan.directions} directions; got {names}."
        )
    return {
        path: as_jax(arrays)
        for name, cell in zip(names, cells, strict=True)
        for path, arrays in _write_cell(name, cell).items()
    }


def carry_from_haiku(config: Mapping[str, Any], state: Any) -> Any:
    """Converts the state of haiku cores to the carry of the layer.

    Args:
        config: of the layer.
        state: an array, or an `hk.LSTMState` (any pair (hidden, cell)); for a stack one per layer,
            as `hk.DeepRNN` has it; for two directions a pair (forward, backward).

    Returns:
        The carry of the layer.

    Raises:
        ConversionError: another nesting, or another shape, than the config says.

    Example:
        >>> c, h = carry_from_haiku({"name": "scan_lstm", "features": 2}, (np.zeros(2), np.ones(2)))
        >>> float(c.sum())
        2.0
    """
    states = carries.unnest(config, state, carries.read_pair, "haiku state")
    return carries.to_ours(config, states)


def carry_to_haiku(config: Mapping[str, Any], carry: Any) -> Any:
    """Converts the carry of a layer to the state of haiku cores.

    Args:
        config: of the layer.
        carry: of the layer.

    Returns:
        An array or an `hk.LSTMState`, for which haiku is imported; nested as the carry is.

    Raises:
        ConversionError: the carry is not one of the layer that `config` builds.

    Example:
        >>> carry_to_haiku({"name": "scan_simplified_gru", "features": 2}, np.ones((5, 2))).shape
        (5, 2)
    """
    if plan_of(config).kind not in _DEFAULT_NAMES:
        raise refuse(f"a carry of {config['name']}", "dm-haiku has no such core.", "")
    return as_jax(carries.nest(config, carries.from_ours(config, carry), _write_state))


def _write_state(state: carries.State) -> Any:
    if state.c is None:
        return state.h
    import haiku

    return haiku.LSTMState(hidden=state.h, cell=state.c)


def _names(modules: str | Sequence[str]) -> list[str]:
    return [modules] if isinstance(modules, str) else list(modules)


def _only_core(flat: Mapping[str, Any]) -> str:
    ends = ("/linear/w", "/w_h")
    cores = sorted({key.removesuffix(end) for key in flat for end in ends if key.endswith(end)})
    if len(cores) != 1:
        raise ConversionError(
            f"haiku params: expected one recurrent core; found {cores or 'none'} in modules "
            f"{sorted({key.rpartition('/')[0] for key in flat})}. Name it with `modules`."
        )
    return cores[0]


def _read_cell(source: Source) -> Cell:
    if "linear/w" not in source:
        return _read_gru(source)
    if any(key.startswith("linear_1/") for key in source):
        return _read_vanilla(source)
    shape = source.shape("linear/w")
    features = shape[-1] // 4 if shape else 0
    fused = source.take("linear/w", (max(shape[0] if shape else 0, features), 4 * features))
    bias = split_gates(source.take("linear/b", (4 * features,)), _LSTM)
    source.finish()
    inputs, recurrent = np.split(fused, [fused.shape[0] - features])
    return Cell(
        "lstm",
        split_gates(inputs, _LSTM),
        split_gates(recurrent, _LSTM),
        bias | {"f": bias["f"] + bias["f"].dtype.type(_FORGET)},
    )


def _read_gru(source: Source) -> Cell:
    features = (source.shape("w_h") or (0,))[0]
    inputs = (source.shape("w_i") or (0,))[0]
    cell = Cell(
        "simplified_gru",
        split_gates(source.take("w_i", (inputs, 3 * features)), _GRU),
        split_gates(source.take("w_h", (features, 3 * features)), _GRU),
        split_gates(source.take("b", (3 * features,)), _GRU),
    )
    source.finish()
    return cell


def _read_vanilla(source: Source) -> Cell:
    inputs, features = (*source.shape("linear/w"), 0, 0)[:2]
    bias = source.take("linear/b", (features,))
    if "linear_1/b" in source:
        bias = bias + source.take("linear_1/b", (features,))
    cell = Cell(
        "elman",
        {"": source.take("linear/w", (inputs, features))},
        {"": source.take("linear_1/w", (features, features))},
        {"": bias},
        options={"activation_fn": "relu"},
    )
    source.finish()
    return cell


def _write_cell(name: str, cell: Cell) -> dict[str, dict[str, np.ndarray]]:
    if cell.bias is None:
        # haiku always has biases, and a zero one is none.
        zeros = {gate: np.zeros_like(kernel[0]) for gate, kernel in cell.kernels.items()}
        cell = dataclasses.replace(cell, bias=zeros)
    bias = dict(cell.bias or {})
    if cell.kind == "simplified_gru":
        return {
            name: {
                "w_i": fuse_gates(cell.kernels, _GRU),
                "w_h": fuse_gates(cell.recurrent, _GRU),
                "b": fuse_gates(bias, _GRU),
            }
        }
    if cell.kind == "elman":
        return {
            f"{name}/linear": {"w": cell.kernels[""], "b": bias[""]},
            f"{name}/linear_1": {"w": cell.recurrent[""], "b": np.zeros_like(bias[""])},
        }
    bias["f"] = bias["f"] - bias["f"].dtype.type(_FORGET)
    stacked = {g: np.concatenate([cell.kernels[g], cell.recurrent[g]]) for g in _LSTM}
    return {f"{name}/linear": {"w": fuse_gates(stacked, _LSTM), "b": fuse_gates(bias, _LSTM)}}
