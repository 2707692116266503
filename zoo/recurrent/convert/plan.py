"""What a config says of the network that it builds, in the terms of other libraries."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import registry
from zoo.recurrent.convert.cells import KINDS
from zoo.recurrent.convert.errors import ConversionError, refuse

DEFAULTS = {"gate_fn": "sigmoid", "activation_fn": "tanh", "reset_gate": True}

_KIND_OF = {kind.layer: name for name, kind in KINDS.items()}
# What a converter reads off a config, or finds in the parameters.
_READ = {"name", "layer", "num_layers", "time_axis", "reverse", "merge"}
_READ |= {"features", "use_bias", "projection", "peepholes", "coupled_gates", *DEFAULTS}
# Options of training and of execution: the function that the weights define is the same.
_NEUTRAL = {
    *("unroll", "implementation", "precision", "checkpoint_every", "truncate_every"),
    *("kernel_init", "recurrent_kernel_init", "bias_init", "forget_bias"),
    *("dtype", "param_dtype", "carry_dtype"),
    *("dropout_rate", "recurrent_dropout_rate"),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Layers x directions of one kind of cell.

    Attributes:
        leaf: the config of the leaf layer.
        kind: its key in `KINDS`.
        num_layers: layers on top of each other.
        directions: 1, or 2 for forward and backward.
        stacked: whether the config is a stack, which it may be with one layer too.
        reverse: whether the network runs backwards.
        merge: what is done with the outputs of two directions, as `bidirectional` takes it.
    """

    leaf: Mapping[str, Any]
    kind: str
    num_layers: int = 1
    directions: int = 1
    stacked: bool = False
    reverse: bool = False
    merge: str | Callable[..., Any] = "concat"


def plan_of(config: Mapping[str, Any]) -> Plan:
    """Reads the nesting of a config: a stack of bidirectional layers of a leaf, or part of that.

    Raises:
        ConversionError: another nesting, a layer that no converter writes, or an option that
            changes the function in a way that no other library knows.

    Example:
        >>> plan = plan_of({"name": "stack", "num_layers": 2, "layer": "gru", "features": 8})
        >>> plan.kind, plan.num_layers, plan.directions, dict(plan.leaf)
        ('gru', 2, 1, {'name': 'gru', 'features': 8})
    """
    found: dict[str, Any] = {"reverse": bool(config.get("reverse", False))}
    leaf = config
    if _name(leaf) == "stack":
        found |= {"stacked": True, "num_layers": leaf.get("num_layers", 1)}
        leaf = _inside(leaf)
    if _name(leaf) == "bidirectional":
        found |= {"directions": 2, "merge": leaf.get("merge", "concat")}
        leaf = _inside(leaf)
    name = _name(leaf)
    if name in ("stack", "bidirectional"):
        raise refuse(
            f"{name!r} inside of {_name(config)!r}",
            "other libraries nest at most 'stack' around 'bidirectional' around one leaf layer.",
            "Convert its layers one by one.",
        )
    if name not in _KIND_OF:
        raise refuse(
            f"the layer {name!r}",
            "no converter writes it.",
            f"Expected one of {sorted(_KIND_OF)}, or 'bidirectional' or 'stack' of one.",
        )
    _check_options(leaf, name)
    return Plan(leaf, _KIND_OF[name], **found)


def _inside(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the config of the inner layer, with the options that its composite hands on to it."""
    name = _name(config)
    own = {"name", "layer", "num_layers", *registry.spec(name).defaults}
    _check_options({key: value for key, value in config.items() if key in own}, name)
    inner = config.get("layer")
    inner = inner if isinstance(inner, Mapping) else {"name": inner}
    return {**inner, **{key: value for key, value in config.items() if key not in own}}


def _name(config: Any) -> str:
    if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
        raise ConversionError(
            "config: expected a mapping with the registered 'name' of a layer, and another one, or "
            f"its name, as the 'layer' of a composite; got {config!r}."
        )
    return registry.spec(config["name"]).name


def _check_options(config: Mapping[str, Any], name: str) -> None:
    defaults = registry.spec(name).defaults
    for option, value in config.items():
        if option in _READ | _NEUTRAL or value == defaults.get(option):
            continue
        if option in ("learned_carry", "carry_init"):
            raise refuse(
                f"{option}={value!r} of {name}",
                "other libraries keep no initial carry among their weights.",
                "Take it out of the config (and 'initial_h' and 'initial_c' out of the variables), "
                "and hand the carry over with the function named carry_to_....",
            )
        raise refuse(
            f"{option}={value!r} of {name}",
            "it changes what the layer computes, and no other library has it.",
            "Take it out of the config to convert the weights alone.",
        )
