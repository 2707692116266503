"""Carries: layers x directions of states, and the nested carry that stands for them here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.recurrent.convert.errors import ConversionError
from zoo.recurrent.convert.plan import Plan, plan_of
from zoo.recurrent.convert.source import as_jax, as_numpy


class State(NamedTuple):
    """The state of one direction of one layer.

    Attributes:
        h: (*batch, H), or (*batch, P) with a projection.
        c: (*batch, H); None for every cell but the LSTM.
    """

    h: Any
    c: Any = None


States = Sequence[Sequence[State]]


def read_ours(carry: Any) -> State:
    """Reads the carry of a leaf layer: h, or (c, h)."""
    return State(carry[1], carry[0]) if isinstance(carry, tuple | list) else State(carry)


def write_ours(state: State) -> Any:
    """Writes the carry of a leaf layer: h, or (c, h)."""
    return state.h if state.c is None else (state.c, state.h)


def read_pair(carry: Any) -> State:
    """Reads (h, c), the order of torch, Keras and equinox, or h."""
    return State(*carry) if isinstance(carry, tuple | list) else State(carry)


def write_pair(state: State) -> Any:
    """Writes (h, c), the order of torch, Keras and equinox, or h."""
    return state.h if state.c is None else (state.h, state.c)


def unnest(
    config: Mapping[str, Any], carry: Any, read: Callable[[Any], State], what: str = "carry"
) -> list[list[State]]:
    """Returns layers x directions of states from a carry that is nested as the config is.

    Args:
        config: of the layer.
        carry: for a stack one entry per layer, for two directions (forward, backward), and inside
            whatever `read` takes.
        read: turns the carry of one direction of one layer into a state.
        what: what the carry is called in messages.

    Raises:
        ConversionError: another nesting, or a state of another shape.
    """
    plan = plan_of(config)
    layers = _entries(carry, plan.num_layers, f"{what}: layers") if plan.stacked else [carry]
    sides = [
        _entries(layer, 2, f"{what}: directions of layer {index}")
        if plan.directions == 2
        else [layer]
        for index, layer in enumerate(layers)
    ]
    states = []
    for index, layer in enumerate(sides):
        states.append([])
        for side in layer:
            pair = isinstance(side, tuple | list)
            if pair != (plan.kind == "lstm") or (pair and len(side) != 2):
                raise ConversionError(
                    f"{what}: layer {index} holds {_describe(side)}; expected "
                    + ("two arrays, h and c." if plan.kind == "lstm" else "one array, h.")
                )
            states[-1].append(read(side))
    return check(plan, states, what)


def nest(config: Mapping[str, Any], states: States, write: Callable[[State], Any]) -> Any:
    """Returns the carry, nested as the config is, with `write` for each state.

    Raises:
        ConversionError: the config has no exact mapping.
    """
    plan = plan_of(config)
    layers = [
        tuple(map(write, layer)) if plan.directions == 2 else write(layer[0]) for layer in states
    ]
    return tuple(layers) if plan.stacked else layers[0]


def to_ours(config: Mapping[str, Any], states: States) -> Any:
    """Returns the carry of the layer that `config` builds, as JAX arrays."""
    return as_jax(nest(config, states, write_ours))


def from_ours(config: Mapping[str, Any], carry: Any) -> list[list[State]]:
    """Returns layers x directions of states, as NumPy arrays, from a carry of ours."""
    return unnest(config, carry, read_ours)


def check(plan: Plan, states: States, what: str) -> list[list[State]]:
    """Returns the states as NumPy arrays, after a check of their number and their shapes.

    Raises:
        ConversionError: it says what was found and what was expected.
    """
    found = [len(layer) for layer in states]
    if found != [plan.directions] * plan.num_layers:
        raise ConversionError(
            f"{what}: expected {plan.num_layers} layers of {plan.directions} directions; "
            f"found directions {found}."
        )
    features = plan.leaf["features"]
    widths = {"h": plan.leaf.get("projection") or features, "c": features}
    batch = np.shape(states[0][0].h)[:-1]
    checked = []
    for index, layer in enumerate(states):
        checked.append([])
        for state in layer:
            arrays = {}
            for field, array in state._asdict().items():
                if (array is None) != (field == "c" and plan.kind != "lstm"):
                    raise ConversionError(f"{what}: layer {index} has {field}={array!r}.")
                if array is not None:
                    array = as_numpy(array, what)
                    if array.shape != (*batch, widths[field]):
                        raise ConversionError(
                            f"{what}: {field} of layer {index} has shape {array.shape}; "
                            f"expected {(*batch, widths[field])}."
                        )
                arrays[field] = array
            checked[-1].append(State(**arrays))
    return checked


def _entries(carry: Any, count: int, what: str) -> Sequence[Any]:
    if not isinstance(carry, tuple | list) or len(carry) != count:
        raise ConversionError(f"{what}: expected {count} entries; found {_describe(carry)}.")
    return carry


def _describe(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"an array of shape {np.shape(value)}"
