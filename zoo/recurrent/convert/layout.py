"""Layers x directions of cells, and the config and parameter tree that stand for them here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from zoo.recurrent.convert.activations import name_of
from zoo.recurrent.convert.cells import KINDS, Cell, read_cell
from zoo.recurrent.convert.errors import ConversionError, refuse, warn_narrowed
from zoo.recurrent.convert.plan import DEFAULTS, Plan, plan_of
from zoo.recurrent.convert.source import Source, as_jax, common_dtype, flatten, runnable

Layers = Sequence[Sequence[Cell]]
Merge = str | Callable[..., Any]

_HOMES = {
    "gru": "torch, Keras with reset_after=True, equinox, Flax Linen and, where `hn/bias` is 0, nnx",
    "lstm": "torch, Keras, dm-haiku, equinox, Flax Linen and nnx",
    "simplified_gru": "Keras with reset_after=False and dm-haiku",
    "elman": "torch, Keras, dm-haiku (relu), Flax Linen and nnx",
    "mgu": "Flax Linen",
}


def assemble(
    layers: Layers,
    *,
    time_axis: int = 0,
    reverse: bool = False,
    merge: Merge = "concat",
    dropout_rate: float = 0.0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the config and the variables of layers x directions of cells.

    Args:
        layers: one sequence per layer with one cell, or a forward and a backward one.
        time_axis: option of the outermost layer; what is the default is left out of the config.
        reverse: whether the only direction runs backwards in time.
        merge: of two directions.
        dropout_rate: between layers.

    Raises:
        ConversionError: the layers are not equal, as a stack needs it, or do not fit together.
    """
    _check_equal(layers, merge)
    first = layers[0][0]
    config: dict[str, Any] = {"name": KINDS[first.kind].layer, "features": first.features}
    if first.projection is not None:
        config["projection"] = first.outputs
    if first.bias is None:
        config["use_bias"] = False
    config |= {key: value for key, value in first.options.items() if value != DEFAULTS.get(key)}
    if first.initial:
        config["learned_carry"] = True
    trees = in_common_dtype([_tree(cells) for cells in layers], config)

    if len(layers[0]) == 2:
        config = {"name": "bidirectional", "layer": config}
        if merge != "concat":
            config["merge"] = merge
    params = trees[0]
    if len(layers) > 1:
        config = {"name": "stack", "num_layers": len(layers), "layer": config}
        if dropout_rate:
            config["dropout_rate"] = dropout_rate
        params = {"first": trees[0], "rest": jax.tree.map(lambda *x: np.stack(x), *trees[1:])}
    config |= {"time_axis": time_axis} if time_axis else {}
    config |= {"reverse": True} if reverse else {}
    return config, {"params": as_jax(params)}


def in_common_dtype(trees: Any, config: dict[str, Any]) -> Any:
    """Returns arrays in one dtype that layers compute in, and writes it into the config."""
    found = common_dtype(leaf.dtype for leaf in jax.tree.leaves(trees))
    dtype = runnable(found)
    if found != dtype:
        warn_narrowed(found, dtype)
    if dtype != np.float32:
        config["param_dtype"] = dtype.name
    if dtype == np.float64:
        config["carry_dtype"] = dtype.name
    return jax.tree.map(lambda leaf: leaf.astype(found, copy=False), trees)


def disassemble(
    config: Mapping[str, Any], variables: Mapping[str, Any], library: str, kinds: Sequence[str]
) -> tuple[Plan, list[list[Cell]]]:
    """Returns the plan of a config and the layers x directions of cells in its variables.

    Args:
        config: as `registry.build` takes it.
        variables: of the layer; collections other than "params" have to be empty.
        library: where the weights are to go, for messages.
        kinds: the keys of `KINDS` that the library has a cell for.

    Raises:
        ConversionError: the library has no such cell, or config and variables do not agree.
    """
    plan = plan_of(config)
    if plan.kind not in kinds:
        raise refuse(
            f"{KINDS[plan.kind].layer} to {library}",
            f"{library} has no cell with these equations.",
            f"It has an equal in {_HOMES[plan.kind]}.",
        )
    if plan.reverse and plan.directions == 2:
        raise refuse(
            f"'bidirectional' with reverse=True to {library}",
            "the first half of its outputs comes from the backward direction.",
            "Take reverse=True out of the config, exchange 'forward' and 'backward' in the "
            "variables, and exchange the two halves of the outputs.",
        )
    leftover = sorted(name for name, tree in variables.items() if name != "params" and tree)
    if "params" not in variables or leftover:
        raise ConversionError(
            f"variables: expected the collection 'params' alone; found {sorted(variables)}."
        )
    params = jax.tree.map(np.asarray, meta.unbox(variables["params"]))
    trees = [params]
    if plan.stacked:
        trees = _unstack(params, plan.num_layers)
    options = {
        key: name_of(plan.leaf[key])
        for key in DEFAULTS
        if key in plan.leaf and name_of(plan.leaf[key]) != DEFAULTS[key]
    }
    for option in ("peepholes", "coupled_gates"):
        if plan.leaf.get(option):
            raise refuse(
                f"{option}=True to {library}",
                "its cell has no such gates.",
                "ONNX has an equal, whose nodes are read and not written.",
            )
    use_bias = plan.leaf.get("use_bias", True)
    flags = {
        "use_bias": use_bias,
        "inner_bias": use_bias
        and KINDS[plan.kind].inner is not None
        and plan.leaf.get("reset_gate", True),
        "projection": plan.leaf.get("projection") is not None,
    }
    layers = []
    for index, tree in enumerate(trees):
        flat = flatten(tree)
        sides = ("",) if plan.directions == 1 else ("forward", "backward")
        if plan.directions == 2:
            strangers = sorted(set(tree) - set(sides))
            if strangers:
                raise ConversionError(
                    f"variables of layer {index}: expected 'forward' and 'backward'; also found "
                    f"{strangers}."
                )
        where = f"variables of layer {index} of {plan.num_layers}"
        layers.append(
            [read_cell(Source(flat, where, s, "/"), plan.kind, options, **flags) for s in sides]
        )
    _check_equal(layers, plan.merge)
    width = plan.leaf.get("features")
    if layers[0][0].features != width:
        raise ConversionError(
            f"variables: the layer has {layers[0][0].features} features; the config says {width}."
        )
    return plan, layers


def require_functions(
    layers: Layers, library: str, activations: Sequence[Any], gates: Sequence[Any] = ("sigmoid",)
) -> None:
    """Checks that a library has the functions of the cells.

    Raises:
        ConversionError: another `activation_fn` or `gate_fn` than the library can be given.
    """
    options = DEFAULTS | dict(layers[0][0].options)
    for option, allowed in (("activation_fn", activations), ("gate_fn", gates)):
        if options[option] not in allowed:
            raise refuse(
                f"{option}={options[option]!r} to {library}",
                f"its {layers[0][0].kind} cell computes with {' or '.join(map(repr, allowed))}.",
                "Keras and Flax cells take other functions.",
            )


def _tree(cells: Sequence[Cell]) -> dict[str, Any]:
    if len(cells) == 1:
        return cells[0].params()
    return {"forward": cells[0].params(), "backward": cells[1].params()}


def _unstack(params: Mapping[str, Any], num_layers: int) -> list[Any]:
    expected = {"first", "rest"} if num_layers > 1 else {"first"}
    if set(params) != expected:
        raise ConversionError(
            f"variables: a stack of {num_layers} has {sorted(expected)} under 'params'; "
            f"found {sorted(params)}."
        )
    for path, leaf in flatten(params.get("rest", {})).items():
        if leaf.ndim == 0 or leaf.shape[0] != num_layers - 1:
            raise ConversionError(
                f"variables: 'rest/{path}' has shape {leaf.shape}; expected a leading axis of "
                f"{num_layers - 1}, one entry for each layer above the first."
            )
    above = [jax.tree.map(lambda x, i=i: x[i], params["rest"]) for i in range(num_layers - 1)]
    return [params["first"], *above]


def _check_equal(layers: Layers, merge: Merge) -> None:
    first = layers[0][0]
    for index, cells in enumerate(layers):
        inputs = first.inputs if index == 0 else _merged_width(first, len(layers[0]), merge)
        for cell in cells:
            for field, found, expected in (
                ("directions", len(cells), len(layers[0])),
                ("cell", cell.kind, first.kind),
                ("features", cell.features, first.features),
                ("output features", cell.outputs, first.outputs),
                ("biases", cell.bias is not None, first.bias is not None),
                ("options", dict(cell.options), dict(first.options)),
                ("input features", cell.inputs, inputs),
            ):
                if found != expected:
                    raise refuse(
                        f"layer {index} with {field}={found!r}",
                        f"it stands together with layers that need {field}={expected!r}, and "
                        "'stack' and 'bidirectional' repeat one layer.",
                        "Convert the layers one by one and call them one after the other.",
                    )


def _merged_width(cell: Cell, directions: int, merge: Merge) -> int:
    if callable(merge):
        one = jax.ShapeDtypeStruct((cell.outputs,), jnp.float32)
        return jax.eval_shape(merge, one, one).shape[-1]
    return cell.outputs * (directions if merge == "concat" else 1)
