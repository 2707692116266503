"""What can go wrong with a name or its options, and what to do about it."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class RegistryError(Exception):
    """Base of the errors of this package; each is also the built-in error one would expect."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the finished message with the facts, so that other processes can raise it too."""
        return _restored, (type(self), self.args, self.__dict__)


class UnknownNameError(RegistryError, LookupError):
    """Nothing is registered under this name.

    Causes: a slip of the pen (`near` holds names like it); a plugin that is not installed; a module
    whose `registry.register(...)` has not run because nobody imported it.
    """

    def __init__(
        self, name: str, known: Iterable[str] = (), unreadable: Sequence[str] = ()
    ) -> None:
        """Says what comes near `name` among the `known` ones, and which plugins are damaged."""
        self.name, self.near = name, _near(name, known)
        message = (
            f"nothing is registered as {name!r}{_did_you_mean(self.near)}; if a plugin brings it, "
            "is the plugin installed? If a module registers it, was that imported? "
            "registry.names() lists what there is"
        )
        if unreadable:
            message += f"; entry points that could not be read: {', '.join(unreadable)}"
        super().__init__(message)


class DuplicateNameError(RegistryError, ValueError):
    """The name, or one of the aliases, is taken.

    Cure: another name, dotted with that of your project (`acme.scan_foo`), or `override=True` to
    replace what is there.
    """

    def __init__(self, name: str, taken_by: str, *, can_override: bool = True) -> None:
        """Says what has the name, and whether it could be replaced."""
        self.name = name
        cure = "choose another, dotted with your project's name like 'acme.scan_foo'"
        if can_override:
            cure += ", or pass override=True to replace it"
        super().__init__(f"{name!r} is taken by {taken_by}; {cure}")


class WrongOptionError(RegistryError, TypeError):
    """The factory does not take an option that was given, or needs one that was not.

    Only the call itself is judged: a `TypeError` from inside the factory comes out as it is.
    """

    def __init__(
        self,
        name: str,
        unknown: Sequence[str],
        missing: Sequence[str],
        known: Sequence[str],
        signature: str,
    ) -> None:
        """Says every fault at once, unknown options first, then the signature."""
        self.name, self.unknown, self.missing = name, tuple(unknown), tuple(missing)
        faults = [
            f"has no option {option!r}{_did_you_mean(_near(option, known))}" for option in unknown
        ]
        if missing:
            faults.append(f"needs {', '.join(map(repr, missing))}")
        super().__init__(f"{name!r} {' and '.join(faults)}; its signature is {signature}")


class LoadError(RegistryError, ImportError):
    """A name is known, but its factory cannot be loaded; all other names are unaffected.

    Causes: a plugin, or something that it depends on, does not import; an entry point leads to
    nothing that can be called; an entry point's name has no dot, or two distributions claim it.
    """

    def __init__(self, name: str, where: str, reason: str) -> None:
        """Says whose the name is and why it cannot be loaded."""
        self.where = where
        super().__init__(f"cannot load {name!r} ({where}): {reason}")


def _near(name: str, known: Iterable[str]) -> tuple[str, ...]:
    return tuple(difflib.get_close_matches(name.lower().replace("-", "_"), known, n=3))


def _did_you_mean(near: Sequence[str]) -> str:
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def _restored(cls: type[RegistryError], args: tuple[Any, ...], facts: dict[str, Any]) -> Any:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error
