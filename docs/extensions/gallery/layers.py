"""The registered layers that get a page, and an instance of each."""

import inspect
from typing import Any

import registry

FAMILY = "recurrent"

INSIDE: dict[str, dict[str, Any]] = {
    "bidirectional": {"layer": "scan_gru"},
    "stack": {"num_layers": 2, "layer": "scan_gru"},
}
"""What layers that are made of others are built of here."""


def names() -> list[str]:
    """Every registered name of this project, in the order of the catalogue."""
    from zoo.catalogue import LAYERS

    return [name for name, about in LAYERS.items() if about["family"] == FAMILY]


def layer_class(name: str) -> type:
    """The class of what a name builds."""
    factory = registry.spec(name).factory
    return factory if inspect.isclass(factory) else inspect.signature(factory).return_annotation


def is_leaf(name: str) -> bool:
    """Whether the layer is not made of other layers."""
    return "composite" not in registry.spec(name).tags


def is_parallel(name: str) -> bool:
    """Whether the layer has an implementation that runs over time in parallel."""
    return "parallel" in registry.spec(name).tags


def is_conv(name: str) -> bool:
    """Whether the layer reads images or volumes."""
    return "convolutional" in registry.spec(name).tags


def build(name: str, features: int, **options: Any) -> Any:
    """Builds a layer; one that is made of others is made of GRUs."""
    return registry.build(name, **INSIDE.get(name, {}), features=features, **options)
