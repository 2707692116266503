"""What is known about one registered name."""

import functools
import inspect
import pkgutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from registry.errors import LoadError

# Every Flax module has these two: they place it in a module tree and say nothing about the layer.
_MODULE_OPTIONS = {"parent", "name"}


# Python's imports hold a lock per module, and two threads that enter a package at different places
# wait for each other: one of them then meets half a module.
_IMPORTING = threading.RLock()


@dataclass(frozen=True)
class Spec:
    """One registered name: how it is built, and what a person needs to know of it.

    Attributes:
        name: the registered name.
        factory: builds the layer from keyword options. In `registry.spec(name)` always callable;
            inside the registry it may still be an import path `"module:attribute"`.
        family: what kind of thing this is, as `names(family=...)` selects it; "recurrent".
        summary: one line; without one, the first line of the factory's docstring.
        inputs: the call's arguments with their shapes, `"carry, xs (T, *batch, D)"`.
        outputs: the call's results with their shapes, `"carry, ys (T, *batch, H)"`.
        references: papers, one string each.
        aliases: further names that mean this one.
        tags: words for what it can do, as `names(tag=...)` selects it.
        renamed_from: former name → the version that renamed it. Each still means this one, with a
            `DeprecationWarning`.
        renamed_options: former option → (option, the version that renamed it), likewise.
        where: where it was registered: `"built-in catalogue"`, `"module:line"` or
            `"entry point of acme-layers 1.2"`.
        defaults: option → default value, read off the factory's signature; required options, and
            the `parent` and `name` that every Flax module has, are left out.

    Example:
        >>> def scan_sum(features, scale=1.0):
        ...     "Sums over time."
        >>> spec = Spec("acme.scan_sum", scan_sum)
        >>> spec.summary, dict(spec.defaults)
        ('Sums over time.', {'scale': 1.0})
    """

    name: str
    factory: Any
    family: str = ""
    summary: str = ""
    inputs: str = ""
    outputs: str = ""
    references: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    renamed_from: Mapping[str, str] = field(default_factory=dict, hash=False)
    renamed_options: Mapping[str, tuple[str, str]] = field(default_factory=dict, hash=False)
    where: str = ""
    defaults: Mapping[str, Any] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Derives what the factory itself knows, once it is more than an import path."""
        defaults = {}
        if callable(self.factory):
            defaults = {
                option: parameter.default
                for option, parameter in (layer_options(self.factory) or {}).items()
                if parameter.default is not parameter.empty
            }
            if not self.summary:
                object.__setattr__(self, "summary", _first_line(self.factory))
        object.__setattr__(self, "defaults", MappingProxyType(defaults))

    def resolved(self) -> "Spec":
        """Returns this spec with a callable factory, importing it where it is still a path.

        Raises:
            LoadError: the import fails in any way, or leads to something that cannot be called.
        """
        if callable(self.factory):
            return self
        try:
            with _IMPORTING:
                factory = pkgutil.resolve_name(self.factory)
        except (Exception, SystemExit) as error:  # a plugin must not end the process it is named in
            reason = f"importing {self.factory!r} raised {type(error).__name__}: {error}"
            raise LoadError(self.name, self.where, reason) from error
        if not callable(factory):
            reason = f"{self.factory!r} is of type {type(factory).__name__}, expected a callable"
            raise LoadError(self.name, self.where, reason)
        return replace(self, factory=factory)


def options(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """Returns the parameters of `factory`, or None where Python cannot tell them.

    Example:
        >>> list(options(lambda features, scale=1.0: None))
        ['features', 'scale']
    """
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return None


def layer_options(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """Returns `options(factory)` without the `parent` and `name` of a Flax module."""
    parameters = options(factory)
    if parameters is None or not parameters.keys() >= _MODULE_OPTIONS:
        return parameters
    return {key: value for key, value in parameters.items() if key not in _MODULE_OPTIONS}


def _first_line(factory: Callable[..., Any]) -> str:
    while isinstance(factory, functools.partial):
        factory = factory.func
    doc = inspect.cleandoc(factory.__doc__ or "")
    # A dataclass without a docstring is given its own signature for one.
    if doc.startswith(f"{getattr(factory, '__name__', '')}("):
        return ""
    return doc.partition("\n")[0]
