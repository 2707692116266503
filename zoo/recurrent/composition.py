"""Layers made of layers: how an inner layer is named and built."""

from collections.abc import Callable, Mapping
from typing import Any

import registry
from zoo.recurrent.contract import RecurrentLayer

LayerLike = str | Mapping[str, Any] | Callable[..., RecurrentLayer]


def config_of(layer: LayerLike, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns one mapping for an inner layer, its options merged.

    Args:
      layer: a registered name, a mapping with "name" and options, or a layer class.
      options: further options, which win over the mapping's.

    Raises:
      TypeError: ``layer`` is something else.
    """
    if isinstance(layer, Mapping):
        return {**layer, **options}
    if isinstance(layer, str) or callable(layer):
        return {"name": layer, **options}
    raise TypeError(
        "layer: expected a registered name, a mapping such as "
        f'{{"name": "scan_gru", "features": 64}} or a layer class, got {type(layer).__name__}. '
        "A layer that is already built cannot be repeated: give its class or its mapping."
    )


def build_inner(config: LayerLike, **forced: Any) -> RecurrentLayer:
    """Builds an inner layer.

    Args:
      config: see ``config_of``.
      **forced: options that the composite decides (``time_axis``, ``reverse``).

    Raises:
      ValueError: the inner configuration contradicts the composite.
      TypeError: what was built is no recurrent layer.
    """
    config = config_of(config, {})
    for name, value in forced.items():
        if config.get(name, value) != value and name == "time_axis":
            raise ValueError(
                f"the inner layer has {name}={config[name]!r}, the one around it {name}={value!r}: "
                "expected the same. Cure: set it on the outermost layer only."
            )
    what = config["name"]
    if callable(what):
        rest = {key: value for key, value in config.items() if key != "name"}
        layer = what(**{**rest, **forced}, parent=None)
    else:
        layer = registry.build(config, **forced, parent=None)
    if not isinstance(layer, RecurrentLayer):
        raise TypeError(
            f"layer: expected {what!r} to build a RecurrentLayer, got {type(layer).__name__}."
        )
    return layer
