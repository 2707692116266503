"""Names and options that were released under another name, and still work under it."""

import contextlib
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from registry.specs import Spec

# Modules between a call of the registry and the person who made it: composites build what is inside
# of them, and do it again in every copy that Flax makes of them.
_INSIDE = ("registry.", "zoo.", "flax.", "jax.", "dataclasses", contextlib.__name__)


def check_name(name: str, found: Spec) -> None:
    """Warns where `name` is a former name of what was found."""
    if name in found.renamed_from:
        _warn("name", name, found.name, found.renamed_from[name])


def current_options(found: Spec, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options by the names that they have now, and warns of former ones.

    A former name beside the one that it has now is left for the check of the options to refuse.

    Example:
        >>> spec = Spec("acme.scan_sum", len, renamed_options={"width": ("features", "1.3")})
        >>> with warnings.catch_warnings(action="ignore"):
        ...     current_options(spec, {"width": 8, "scale": 2.0})
        {'features': 8, 'scale': 2.0}
    """
    given = {}
    for option, value in config.items():
        now, version = found.renamed_options.get(option, (option, ""))
        if now != option and now not in config:
            _warn(f"option of {found.name!r}", option, now, version)
            option = now
        given[option] = value
    return given


def _warn(what: str, old: str, new: str, version: str) -> None:
    text = (
        f"{old!r}, a former {what}, is {new!r} since version {version}. The former one still "
        f"works, and will not for ever: write {new!r}"
    )
    warnings.warn(text, DeprecationWarning, stacklevel=_levels())


def _levels() -> int:
    """How many calls lie between `warnings.warn` above and the first place outside."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    return level
