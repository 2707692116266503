"""What a Keras config says: layers, directions, activations, dtypes, and what has no equal here."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo.recurrent.convert.activations import SYMMETRIC, from_keras_name
from zoo.recurrent.convert.errors import ConversionError, refuse, warn_reversed

MERGES = {"concat": "concat", "sum": "sum", "mul": "mul", "ave": "mean"}


_KINDS = {"GRU": "gru", "LSTM": "lstm", "SimpleRNN": "elman"}
_KINDS |= {f"ConvLSTM{axes}D": "conv_lstm" for axes in (1, 2, 3)}
_POLICIES = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
_POLICIES |= {name: name for name in ("bfloat16", "float16")}
_POLICIES |= {name: None for name in ("float32", "float64")}
_INSTEAD = {
    "Masking": "Take it out, and call the layer with mask=jnp.any(xs != mask_value, axis=-1). ",
    "SpatialDropout1D": "Take it out, and put flax.linen.Dropout with broadcast_dims there. ",
}
_INNER = {"layer": "forward_layer", "backward_layer": "backward_layer", "cell": "cell"}


def described(layer: Any) -> dict[str, Any]:
    """Returns a live layer as Keras serialises it, under the name of the Keras class that it is.

    Raises:
        ConversionError: it, or a layer inside it, may compute something else than that class.
        TypeError: it is no Keras layer.
    """
    if not (hasattr(layer, "get_config") and callable(layer)):
        hint = ""
        if isinstance(layer, str | os.PathLike):
            hint = " Load the file with keras.models.load_model and give its recurrent layer."
        raise TypeError(
            "from_keras: expected a Keras layer or a list of them, or a list of arrays "
            f"with `config`; got a {type(layer).__name__}.{hint}"
        )
    live_layer: Any = layer
    own: Any = type(live_layer)
    bases = [c for c in own.__mro__ if c.__module__.split(".")[0] == "keras"]
    if not bases:
        raise refuse(
            f"a {own.__module__}.{own.__name__}",
            "it is no layer of Keras 3.",
            "Give layer.get_weights() with {'class_name': ..., 'config': layer.get_config()}.",
        )
    base = bases[0]
    changed = [
        name
        for name in ("call", "__call__", "inner_loop")
        if getattr(own, name, None) is not getattr(base, name, None) or name in vars(layer)
    ]
    if changed or base.__name__ == "Model":
        inside = [each.name for each in getattr(layer, "layers", []) if _is_recurrent(each)]
        raise refuse(
            f"Keras {own.__name__}, a {base.__name__} with a `call` of its own,",
            "it may compute something else than its base.",
            f"Convert its layers: from_keras(model.get_layer(name)) with one of {inside}."
            if base.__name__ == "Model"
            else f"If keras.layers.{base.__name__} is what it computes, give layer.get_weights() "
            f"with {{'class_name': '{base.__name__}', 'config': layer.get_config()}}.",
        )
    config = dict(live_layer.get_config())
    config |= {k: described(getattr(live_layer, name)) for k, name in _INNER.items() if k in config}
    if "cells" in config:
        config["cells"] = [described(cell) for cell in live_layer.cells]
    if "layers" in config:
        live = {each.name: each for each in live_layer.layers}
        config["layers"] = [
            each | described(live[each["config"]["name"]])
            if each["config"]["name"] in live
            else each
            for each in config["layers"]
        ]
    return {"module": "keras.layers", "class_name": base.__name__, "config": config}


def plan_layers(config: Sequence[Any]) -> tuple[list[dict[str, dict[str, Any]]], float]:
    """Returns direction → cell of every layer, and the rate of the dropout between all of them.

    Raises:
        ConversionError: a layer that has no equal here, or not in this place.
    """
    parts = [part for each in config for part in _parts(each)]
    rates = [part for part in parts if isinstance(part, float | int)]
    if not rates:
        return [layer for part in parts if not isinstance(part, float | int) for layer in part], 0.0
    single = [part for part in parts if not isinstance(part, float | int)]
    alternating: list[Any] = [each for layer in single for each in (layer, rates[0])][:-1]
    if parts != alternating or any(len(layer) > 1 for layer in single):
        raise refuse(
            f"Keras Dropout layers with rates {rates}, not one rate between all recurrent layers,",
            "'stack' drops between its layers only, and everywhere at one rate.",
            "Take the Dropout layers out, from_keras([layers]), and put flax.linen.Dropout there.",
        )
    return [layer for part in single for layer in part], rates[0]


def _parts(part: Any, keras: str = "") -> Iterator[list[dict[str, dict[str, Any]]] | float]:
    """Yields the layers of each recurrent part of a model, and the rates of the dropout between."""
    if isinstance(part, Mapping) and part.get("class_name") in ("Sequential", "Functional"):
        keras = str(part.get("keras_version", keras))
        layers = part["config"]
        if isinstance(layers, Mapping):
            if part["class_name"] == "Functional":
                _require_chain(layers)
            layers = layers["layers"]
        for layer in layers:
            yield from _parts(layer, keras)
        return
    if isinstance(part, Mapping) and part.get("class_name") in ("InputLayer", "Dropout"):
        rate = float(part["config"].get("rate", 0.0))
        if part["config"].get("noise_shape"):
            raise refuse(
                "a Keras Dropout with a noise_shape",
                "'stack' draws a mask of its own for every step.",
                "Take it out, and put flax.linen.Dropout with broadcast_dims there.",
            )
        if rate:
            yield rate
        return
    yield list(_layers(part, keras))


def _require_chain(config: Mapping[str, Any]) -> None:
    """Checks that a Functional model calls one layer after the other, and each of them once."""
    layers = config["layers"]
    names = [layer.get("name", layer["config"].get("name")) for layer in layers]
    # Of every layer, the layers whose outputs each of its calls takes.
    calls = [[list(_origins(node)) for node in layer["inbound_nodes"]] for layer in layers]
    ends = set(_origins({"keras_history": config["output_layers"]}))
    if calls != [[], *([[name]] for name in names[:-1])] or ends != {names[-1]}:
        recurrent = [n for n, each in zip(names, layers, strict=True) if _is_named_recurrent(each)]
        raise refuse(
            f"a Keras model of the layers {names}",
            "they are not called one after the other, each once and with the outputs of the one "
            "before alone.",
            f"Convert its layers: from_keras(model.get_layer(name)) with one of {recurrent}.",
        )


def _origins(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key == "keras_history":
                nested = each if isinstance(each[0], list | tuple) else [each]
                yield from (name for name, *_ in nested)
            else:
                yield from _origins(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _origins(each)


def _is_recurrent(layer: Any) -> bool:
    return any(c.__name__ in (*_KINDS, "RNN", "Bidirectional") for c in type(layer).__mro__)


def _is_named_recurrent(part: Mapping[str, Any]) -> bool:
    return part["class_name"] in (*_KINDS, "RNN", "Bidirectional")


def _layers(part: Any, keras: str = "") -> Iterator[dict[str, dict[str, Any]]]:
    """Yields, layer by layer, direction → what is to be known of the cell."""
    if not isinstance(part, Mapping) or not {"class_name", "config"} <= set(part):
        raise ConversionError(
            "Keras config: expected a mapping with 'class_name' and 'config', as "
            f"keras.saving.serialize_keras_object gives it; got {str(part)[:80]!r}."
        )
    name, config = part["class_name"], part["config"]
    keras = str(part.get("keras_version", keras))
    module = str(part.get("module") or "keras")
    if part.get("registered_name") not in (None, name) or module.split(".")[0] != "keras":
        raise refuse(
            f"the layer {part.get('registered_name') or f'{module}.{name}'}",
            "it is a class of your own, and may compute something else than its base.",
            "If a layer of Keras is what it computes, say so in the config: 'class_name' is its "
            "name and 'module' is 'keras.layers', without a 'registered_name'.",
        )
    if name == "Bidirectional":
        yield _both(config, keras)
    elif name == "RNN":
        cell = config["cell"]
        stacked = cell["class_name"] == "StackedRNNCells"
        cells = [
            _cell(each, config, keras) for each in (cell["config"]["cells"] if stacked else [cell])
        ]
        # Stacked cells take every step together: only what leaves the last one is flipped.
        yield from ({"forward": each | {"flips": False}} for each in cells[:-1])
        yield from ({"forward": each} for each in cells[-1:])
    else:
        yield {"forward": _cell(part, config, keras)}


def _both(config: Mapping[str, Any], keras: str) -> dict[str, dict[str, Any]]:
    merge = config.get("merge_mode", "concat")
    if merge not in MERGES:
        raise refuse(
            f"Bidirectional with merge_mode={merge!r}",
            f"a layer here returns one array of outputs; expected one of {list(MERGES)}.",
            "Write merge_mode='concat' into the config, or set layer.merge_mode to it, and split "
            "the outputs in two halves: jnp.split(ys, 2, axis=-1).",
        )
    forward = list(_layers(config["layer"], keras))
    backward = list(_layers(config.get("backward_layer") or config["layer"], keras))
    if len(forward) != 1 or len(backward) != 1:
        raise refuse(
            "Bidirectional around stacked cells",
            "'stack' nests around 'bidirectional' here, so that every layer sees both directions.",
            "Convert the forward and the backward layer one by one.",
        )
    sides = {
        side: layer[0]["forward"] | {"merge": MERGES[merge]}
        for side, layer in (("forward", forward), ("backward", backward))
    }
    if sides["forward"]["backwards"]:
        raise refuse(
            "Bidirectional whose first layer has go_backwards=True",
            "the first half of the outputs comes from the forward direction here.",
            "Exchange the two layers.",
        )
    return sides


def _cell(part: Mapping[str, Any], layer: Mapping[str, Any], keras: str) -> dict[str, Any]:
    name, config = part["class_name"], part["config"]
    kind = _KINDS.get(name.removesuffix("Cell"))
    if kind is None:
        raise refuse(
            f"the Keras layer {name}",
            "it is none that has an equal here.",
            _INSTEAD.get(name, "")
            + f"Expected {sorted(_KINDS)}, their cells in RNN, Bidirectional, Sequential or a "
            "Functional model. Convert the recurrent layers alone: from_keras([layer, ...]).",
        )
    if keras[:2] in ("1.", "2.") or {"implementation", "time_major"} & {*config, *layer}:
        _check_keras_2(name, kind, config, layer)
    if kind == "gru" and not config.get("reset_after", True):
        kind = "simplified_gru"
    where = f"Keras {name}"
    options: dict[str, Any] = {
        "activation_fn": from_keras_name(config.get("activation", "tanh"), where)
    }
    if kind != "elman":
        options["gate_fn"] = from_keras_name(config.get("recurrent_activation", "sigmoid"), where)
    require_symmetric(kind, options)
    policy = config.get("dtype") or "float32"
    if isinstance(policy, Mapping):
        policy = policy.get("config", policy).get("name")
    if policy not in _POLICIES:
        raise refuse(
            f"{where} with the dtype policy {policy!r}",
            "layers here compute in one floating-point dtype.",
            f"Expected one of {sorted(_POLICIES)}; convert it as it was before quantisation.",
        )
    if _POLICIES[policy]:
        options["dtype"] = _POLICIES[policy]
    backwards = bool(layer.get("go_backwards", False))
    return {
        "kind": kind,
        "units": config.get("units", config.get("filters")),
        "convolution": config if kind == "conv_lstm" else None,
        "use_bias": bool(config.get("use_bias", True)),
        "options": options,
        "backwards": backwards,
        "flips": backwards and bool(layer.get("return_sequences", False)),
        "merge": "concat",
    }


def _check_keras_2(
    name: str, kind: str, config: Mapping[str, Any], layer: Mapping[str, Any]
) -> None:
    """Checks that a config of Keras 2 means in Keras 3 what it meant there."""
    gated = kind != "elman"
    functions = [config.get("activation", "tanh"), config.get("recurrent_activation", "sigmoid")]
    needed = {"recurrent_activation"} if gated else set()
    needed |= {"reset_after"} if kind == "gru" else set()
    missing = sorted(needed - set(config))
    if missing:
        raise refuse(
            f"a {name} of Keras 2 without {missing} in its config",
            "their defaults differed between versions of Keras 2.",
            "Write into the config what the layer was trained with.",
        )
    if "hard_sigmoid" in functions[: 1 + gated]:
        raise refuse(
            f"hard_sigmoid in a {name} of Keras 2",
            "it is clip(0.2 x + 0.5, 0, 1) there, and clip(x / 6 + 0.5, 0, 1) in Keras 3 and here.",
            "Write 'sigmoid' into the config, and give the layer that is converted your own "
            "function as `gate_fn`, or `activation_fn`: lambda x: jnp.clip(0.2 * x + 0.5, 0, 1).",
        )
    if layer.get("time_major"):
        raise refuse(
            f"a {name} of Keras 2 with time_major=True",
            "what is converted from Keras takes the batch first.",
            "Write time_major=False into the config, and take 'time_axis' out of the result.",
        )


def require_symmetric(kind: str, options: Mapping[str, Any]) -> None:
    """Checks that the gate of a GRU with `reset_after=False` can change its sign.

    Raises:
        ConversionError: 1 - f(x) is not f(-x).
    """
    gate = options.get("gate_fn", "sigmoid")
    if kind == "simplified_gru" and gate not in SYMMETRIC:
        raise refuse(
            f"a Keras GRU with reset_after=False and the gate {gate!r}",
            "its update gate z is 1 - z here, which is the gate of -x for "
            f"{' and '.join(SYMMETRIC)} only.",
            "Train with one of these, or with reset_after=True.",
        )


def direction(plan: Sequence[Mapping[str, Mapping[str, Any]]]) -> bool:
    """Returns whether the network of one direction runs backwards."""
    cells = [layer["forward"] for layer in plan if len(layer) == 1]
    backwards = {cell["backwards"] for cell in cells}
    if len(backwards) > 1 or any(cell["flips"] for cell in cells[:-1]):
        raise refuse(
            "a sequence of Keras layers with go_backwards=True",
            "each returns its outputs in reversed order, so the next one runs the other way.",
            "Convert the layers one by one and flip the outputs between them.",
        )
    if cells and cells[-1]["flips"]:
        warn_reversed("Keras with go_backwards=True")
    return backwards == {True}
