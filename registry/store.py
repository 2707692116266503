"""The table of names that this process holds: adding, removing, restoring."""

import contextlib
import dataclasses
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from registry.errors import DuplicateNameError, UnknownNameError
from registry.specs import Spec
from registry.text import path_text
from zoo.catalogue import LAYERS

# A name leads to its spec, an alias or a former name to the name that it means.
_table: dict[str, Spec | str] = {}

# Guards `_table` for moments only. It is never held while something is imported or a factory runs:
# another thread may be importing a module that registers names.
_lock = threading.RLock()

# Modules between a call of `register` and the person who made it.
_INSIDE = (f"{__package__}.", contextlib.__name__)

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def register(
    name: str,
    factory: Callable[..., Any] | str | None = None,
    *,
    override: bool = False,
    family: str = "",
    summary: str = "",
    inputs: str = "",
    outputs: str = "",
    references: Iterable[str] = (),
    aliases: Iterable[str] = (),
    tags: Iterable[str] = (),
    renamed_from: Mapping[str, str] | None = None,
    renamed_options: Mapping[str, tuple[str, str]] | None = None,
) -> Any:
    """Gives a factory a name, directly or as a decorator.

    Args:
        name: the name; dotted with that of your project (`acme.scan_foo`), so that no built-in of
            a later release can want it too.
        factory: a class or function that builds the layer from keyword options, or its import path
            `"module:attribute"`, imported on first use. Left out, a decorator is returned.
        override: replaces what has the name. Its aliases keep meaning the name. An alias that
            stands in the way of `name` gives way; a name never gives way to an alias.
        family: what kind of thing this is, for `names(family=...)`.
        summary: one line; by default the first line of the factory's docstring.
        inputs: the arguments of the layer's call with their shapes.
        outputs: the results of the layer's call with their shapes.
        references: papers.
        aliases: further names that mean this one.
        tags: words for what it can do, for `names(tag=...)`.
        renamed_from: former name → the version that renamed it. A former name still means this one,
            and whoever uses it gets a `DeprecationWarning`.
        renamed_options: former option → (option, the version that renamed it), likewise.

    Returns:
        `factory`, unchanged.

    Raises:
        DuplicateNameError: the name, an alias or a former name is taken. Registering the same
            object under the same name again changes nothing and is no error.
        ValueError: the name is not made of identifiers joined by dots.
        TypeError: the name is not a string, or the factory neither callable nor a string.

    Example:
        >>> import registry
        >>> with registry.temporary():
        ...     @registry.register("acme.scan_sum", family="recurrent")
        ...     def scan_sum(features):
        ...         "Sums over time."
        ...         return f"sum of {features}"
        ...     registry.build("acme.scan_sum", features=8)
        'sum of 8'
    """
    where = _caller()
    name, aliases = _checked(name), tuple(map(_checked, _strings(aliases)))
    former = {_checked(old): version for old, version in (renamed_from or {}).items()}

    def add(factory: Callable[..., Any] | str) -> Callable[..., Any] | str:
        if not callable(factory) and not isinstance(factory, str):
            raise TypeError(
                f"expected a class, a function or an import path 'module:attribute' to register as "
                f"{name!r}, got {factory!r} of type {type(factory).__name__}"
            )
        spec = Spec(
            name=name,
            factory=factory,
            family=family,
            summary=summary,
            inputs=inputs,
            outputs=outputs,
            references=_strings(references),
            aliases=aliases,
            tags=_strings(tags),
            renamed_from=former,
            renamed_options=dict(renamed_options or {}),
            where=where,
        )
        _insert(spec, override)
        return factory

    return add if factory is None else add(factory)


def unregister(name: str) -> None:
    """Forgets a name and its aliases, or only an alias where `name` is one.

    A plugin's name goes when its distribution is uninstalled, and cannot be unregistered.

    Raises:
        UnknownNameError: nothing is registered under this name in this process.

    Example:
        >>> import registry
        >>> with registry.temporary():
        ...     registry.unregister("scan_gru")
        ...     registry.names("scan_gru")
        []
    """
    with _lock:
        if name not in _table:
            raise UnknownNameError(name, _table)
        for key in [key for key, value in _table.items() if name in (key, value)]:
            del _table[key]


@contextlib.contextmanager
def temporary(
    name: str | None = None,
    factory: Callable[..., Any] | str | None = None,
    *,
    aliases: Iterable[str] = (),
    **about: Any,
) -> Iterator[None]:
    """Registers a name for the length of a `with` block, then restores what was there before.

    Args:
        name: as for `register`; what has the name is replaced meanwhile. Without a name, nothing
            is registered, and at the end all names are as they were at the start of the block.
        factory: as for `register`.
        aliases: as for `register`.
        **about: `family`, `summary` and whatever else `register` takes.

    Raises:
        TypeError: a name without a factory, or a factory or more without a name.

    Example:
        >>> import registry
        >>> with registry.temporary("scan_gru", lambda features: f"a fake of {features}"):
        ...     registry.build("scan_gru", features=8)
        'a fake of 8'
    """
    aliases = _strings(aliases)
    further = {*aliases, *(about.get("renamed_from") or ())}
    if (name is None) != (factory is None) or (name is None and (aliases or about)):
        raise TypeError("temporary() takes a name and a factory, or nothing at all")

    def ours(key: str, held: Spec | str) -> bool:
        # With a name, what other threads register meanwhile is left alone.
        return name is None or key == name or key in further or held == name

    with _lock:
        before = dict(_table)
    if name is not None:
        register(name, factory, override=True, aliases=aliases, **about)
    try:
        yield
    finally:
        with _lock:
            for key in [key for key, held in _table.items() if ours(key, held)]:
                del _table[key]
            _table.update({key: held for key, held in before.items() if ours(key, held)})


def registered(name: str) -> Spec | None:
    """Returns the spec that this process holds under a name or alias, or None."""
    with _lock:
        held = _table.get(name)
        if isinstance(held, str):
            held = _table.get(held)
        if not isinstance(held, Spec):
            return None
        return _with_aliases(held, [key for key, value in _table.items() if value == held.name])


def everything() -> list[Spec]:
    """Returns all specs that this process holds."""
    with _lock:
        aliases: dict[str, list[str]] = {}
        for key, held in _table.items():
            if isinstance(held, str):
                aliases.setdefault(held, []).append(key)
        specs = [held for held in _table.values() if isinstance(held, Spec)]
    return [_with_aliases(spec, aliases.get(spec.name, ())) for spec in specs]


def keys() -> list[str]:
    """Returns all names, aliases and former names that this process holds."""
    with _lock:
        return list(_table)


def _with_aliases(spec: Spec, now: Iterable[str]) -> Spec:
    # An alias that was registered with the spec may have gone since, and others may have come.
    aliases = tuple(alias for alias in now if alias not in spec.renamed_from)
    return spec if spec.aliases == aliases else dataclasses.replace(spec, aliases=aliases)


def _insert(spec: Spec, override: bool) -> None:
    with _lock:
        held = _table.get(spec.name)
        if isinstance(held, Spec) and not override:
            if _same(held.factory, spec.factory):
                return
            raise DuplicateNameError(spec.name, f"{path_text(held.factory)} ({held.where})")
        if isinstance(held, str) and not override:
            raise DuplicateNameError(spec.name, f"an alias of {held!r}")
        further = (*spec.aliases, *spec.renamed_from)
        for alias in further:
            held = _table.get(alias, spec.name)
            if isinstance(held, Spec) or alias == spec.name:
                raise DuplicateNameError(alias, "a name, not an alias", can_override=False)
            if held != spec.name and not override:
                raise DuplicateNameError(alias, f"an alias of {held!r}")
        _table[spec.name] = spec
        _table.update(dict.fromkeys(further, spec.name))


def _same(one: Callable[..., Any] | str, other: Callable[..., Any] | str) -> bool:
    return _imported(one) is _imported(other) or one == other


def _imported(factory: Callable[..., Any] | str) -> Any:
    """What an import path stands for, if that is in memory already; importing is not for here."""
    if not isinstance(factory, str):
        return factory
    module, _, attribute = factory.partition(":")
    return getattr(sys.modules.get(module), "__dict__", {}).get(attribute, factory)


def _checked(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(
            f"expected a name to register, got {name!r} of type {type(name).__name__}; a decorator "
            "is written @registry.register('acme.scan_foo')"
        )
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"expected a name of identifiers joined by dots, like 'acme.scan_foo', got {name!r}"
        )
    return name


def _strings(value: Iterable[str]) -> tuple[str, ...]:
    """One string is a tuple of one, not of its letters."""
    return (value,) if isinstance(value, str) else tuple(value)


def _caller() -> str:
    """The first place outside this package, `"module:line"`."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(_INSIDE):
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__', '?')}:{frame.f_lineno}"


for _name, _about in LAYERS.items():
    _insert(Spec(_name, where="built-in catalogue", **_about), override=False)
