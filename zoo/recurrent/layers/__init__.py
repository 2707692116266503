"""The leaf layers: one file per layer or family, found through the catalogue."""

import importlib
from typing import Any

from zoo import catalogue


def class_names() -> list[str]:
    """The classes of all built-in leaf layers."""
    return list(_modules())


def __getattr__(name: str) -> Any:
    """Finds a layer class in its file, which is imported when it is asked for."""
    if name not in (modules := _modules()):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(modules[name]), name)


def _modules() -> dict[str, str]:
    factories = (entry["factory"].partition(":") for entry in catalogue.LAYERS.values())
    return {name: module for module, _, name in factories if module.startswith(f"{__name__}.")}
