"""Flags that name a recurrent layer on the command line, for every example."""

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

from absl import flags

Settings = TypeVar("Settings")

_LAYER = flags.DEFINE_string("layer", "scan_gru", "Registered name of the recurrent layer.")
_OF = flags.DEFINE_string(
    "of", None, "Inner layer, where --layer is made of layers: --layer=bidirectional --of=scan_gru."
)
_FEATURES = flags.DEFINE_integer("features", 64, "H, the width of the hidden state.", lower_bound=1)
_OPTIONS = flags.DEFINE_multi_string(
    "option", [], "Further option of the layer, NAME=JSON; may be repeated: --option=num_layers=2."
)
_CONFIG = flags.DEFINE_string(
    "config", None, "JSON file with a mapping for registry.build, in the place of the flags above."
)


@flags.multi_flags_validator(
    ["config", "layer", "of", "features", "option"],
    "a layer comes either from --config or from --layer, --of, --features and --option",
)
def _one_source(values: dict[str, Any]) -> bool:
    own = [name for name in ("layer", "of", "features", "option") if flags.FLAGS[name].present]
    return not (values["config"] and own)


@flags.validator("option", "expected NAME=JSON, such as num_layers=2")
def _all_assignments(options: list[str]) -> bool:
    return all(option.partition("=")[0].isidentifier() and "=" in option for option in options)


def layer_config() -> dict[str, Any]:
    """Returns the layer that the flags ask for, as a mapping for ``registry.build``.

    Raises:
      OSError: ``--config`` names a file that cannot be read.
      ValueError: that file is not JSON, or holds something else than a mapping.
    """
    if _CONFIG.value is not None:
        config = json.loads(Path(_CONFIG.value).read_text())
        if not isinstance(config, dict):
            raise ValueError(
                f"--config={_CONFIG.value}: expected a mapping such as "
                f'{{"name": "scan_gru", "features": 64}}, got {type(config).__name__}'
            )
        return config
    config = {"name": _LAYER.value, "features": _FEATURES.value}
    if _OF.value is not None:
        config["layer"] = _OF.value
    return config | dict(map(_assignment, _OPTIONS.value))


def settings(kind: type[Settings], config: dict[str, Any]) -> Settings:
    """Returns settings of a run: a layer, and of every other field what its flag says.

    Args:
      kind: a dataclass whose field ``layer`` is a mapping, and whose other fields are flags.
      config: the layer.
    """
    names = (field.name for field in dataclasses.fields(kind) if field.name != "layer")
    return kind(layer=config, **{name: flags.FLAGS[name].value for name in names})


def label(config: dict[str, Any]) -> str:
    """Returns a short name for a configuration, fit for a folder: ``bidirectional-scan_gru``."""
    inner = config.get("layer")
    if isinstance(inner, dict):
        return f"{config['name']}-{label(inner)}"
    return config["name"] if inner is None else f"{config['name']}-{inner}"


def _assignment(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
