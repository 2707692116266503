"""A layer as a person reads it: its ``repr``, and the signature of its class."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

import registry


def brief(module: nn.Module) -> str:
    """Writes a module as its class and the options that differ from their defaults, on one line.

    Args:
      module: any module, bound or not.

    Example:
      >>> brief(nn.Dense(4, use_bias=False))
      'Dense(features=4, use_bias=False)'
    """
    given = []
    for field in dataclasses.fields(module):
        value = getattr(module, field.name, dataclasses.MISSING)
        shown = field.init and field.repr and field.name != "parent"
        if shown and value is not dataclasses.MISSING and not _same(value, _default(field)):
            given.append(f"{field.name}={_text(value)}")
    return f"{type(module).__name__}({', '.join(given)})"


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # arrays that are not one number have no truth value
        return False


def _text(value: Any) -> str:
    return brief(value) if isinstance(value, nn.Module) else registry.value_text(value)


class _Parameter(inspect.Parameter):
    """A parameter that is written without the addresses and modules of its ``str``."""

    def __str__(self) -> str:
        stars = {self.VAR_POSITIONAL: "*", self.VAR_KEYWORD: "**"}
        text = stars.get(self.kind, "") + self.name
        annotated = self.annotation is not self.empty
        if annotated:
            text += f": {registry.type_text(self.annotation)}"
        if self.default is self.empty:
            return text
        equals = " = " if annotated else "="
        return f"{text}{equals}{registry.value_text(self.default)}"


class _Signature(inspect.Signature):
    """A signature of such parameters; where Flax puts a module (``parent``) is not written."""

    def __str__(self) -> str:
        return self.format()

    def format(self, *, max_width: int | None = None, **_: Any) -> str:
        """Writes it on one line, or with a line for every parameter where that is too long."""
        parts: list[str] = []
        for name, parameter in self.parameters.items():
            starred = any(part.startswith("*") for part in parts)
            if parameter.kind is parameter.KEYWORD_ONLY and not starred:
                parts.append("*")
            if name != "parent":
                parts.append(str(parameter))
        text = f"({', '.join(parts)})"
        if max_width is not None and len(text) > max_width:
            text = "(\n    " + ",\n    ".join(parts) + "\n)"
        if self.return_annotation is self.empty:
            return text
        return f"{text} -> {registry.type_text(self.return_annotation)}"


def readable(signature: inspect.Signature) -> inspect.Signature:
    """Returns the same signature, written for people.

    Args:
      signature: any; its parameters keep their defaults and annotations.

    Example:
      >>> def scan_sum(features: int, act=nn.relu, **others): ...
      >>> print(readable(inspect.signature(scan_sum)))
      (features: int, act=relu, **others)
    """
    return _Signature(
        [
            _Parameter(x.name, x.kind, default=x.default, annotation=x.annotation)
            for x in signature.parameters.values()
        ],
        return_annotation=signature.return_annotation,
    )


def make_readable(function: Callable[..., Any]) -> None:
    """Makes a function's signature one that is written for people."""
    function.__signature__ = readable(inspect.signature(function))  # pyright: ignore[reportFunctionMemberAccess]
