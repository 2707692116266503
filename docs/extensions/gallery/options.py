"""The options of a layer: what it is called, what it is by default, and what it means."""

import dataclasses
import inspect
from typing import NamedTuple

from docs.extensions.gallery import docstring, layers
from registry.text import value_text


class Row(NamedTuple):
    """One option.

    Attributes:
      name: as it is given.
      default: its value where it is not, or "required".
      meaning: from the docstring of the class that describes it.
    """

    name: str
    default: str
    meaning: str


def rows(name: str) -> tuple[list[Row], list[Row]]:
    """The options that a layer describes or sets itself, and those that it shares with others."""
    layer = layers.layer_class(name)
    meanings = [docstring.parse(base).options for base in inspect.getmro(layer) if base.__doc__]
    own, shared = [], []
    for field in dataclasses.fields(layer):
        if field.name in ("parent", "name"):
            continue
        default = "required" if field.default is dataclasses.MISSING else value_text(field.default)
        known = next((found[field.name] for found in meanings if field.name in found), "")
        row = Row(field.name, default, known)
        mine = field.name in docstring.parse(layer).options or field.name in vars(layer).get(
            "__annotations__", {}
        )
        (own if mine or field.name == "features" else shared).append(row)
    return own, shared
