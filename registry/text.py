"""Signatures and values as a person wants to read them."""

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from registry.specs import layer_options


def value_text(value: Any) -> str:
    """Writes a value without the memory addresses and wrappers of its `repr`.

    Example:
        >>> value_text(0.5), value_text(len), value_text(functools.partial(len))
        ('0.5', 'len', 'len(...)')
        >>> value_text({"name": "scan_gru", "act": [len, abs]})
        "{'name': 'scan_gru', 'act': [len, abs]}"
    """
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{value_text(k)}: {value_text(x)}' for k, x in value.items())}}}"
    if type(value) in (list, tuple):
        inside = ", ".join(map(value_text, value))
        if type(value) is list:
            return f"[{inside}]"
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, functools.partial):
        return f"{value_text(value.func)}(...)"
    if callable(value):
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
        if name:
            # A closure is shown as the call that made it: flax's `lecun_normal()` and the like.
            maker, closure, _ = name.partition(".<locals>")
            return f"{maker}(...)" if closure else name
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def path_text(factory: Callable[..., Any] | str) -> str:
    """Writes where a factory is defined, or the import path that it still is.

    Example:
        >>> path_text(re.compile), path_text("zoo.recurrent:ScanGRU")
        ('re:compile', 'zoo.recurrent:ScanGRU')
    """
    if isinstance(factory, str):
        return factory
    return f"{getattr(factory, '__module__', '?')}:{value_text(factory)}"


def type_text(annotation: Any) -> str:
    """Writes an annotation as it stands in the source, without module names.

    Example:
        >>> type_text(int), type_text(float | None), type_text(inspect.Parameter.empty)
        ('int', 'float | None', '')
        >>> type_text(Union[str, re.Pattern, Any, None])
        'str | Pattern | None'
    """
    if annotation is inspect.Parameter.empty:
        return ""
    if annotation in (None, type(None)):
        return "None"
    if get_origin(annotation) in (Union, types.UnionType):
        # Beside Any, the others say what is meant.
        kinds = [kind for kind in get_args(annotation) if kind is not Any]
        return " | ".join(dict.fromkeys(map(type_text, kinds)))
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b[A-Za-z_][\w.]*\.(?=\w)", "", text)


def signature_text(factory: Callable[..., Any]) -> str:
    """Writes the options of a factory on one line.

    Example:
        >>> def scan_sum(features, *, scale=1.0): ...
        >>> signature_text(scan_sum)
        '(features, *, scale=1.0)'
    """
    parameters = (layer_options(factory) or {}).values()
    plain = inspect.Signature(
        [
            parameter.replace(
                annotation=parameter.empty,
                default=parameter.default
                if parameter.default is parameter.empty
                else _Shown(value_text(parameter.default)),
            )
            for parameter in parameters
        ]
    )
    return str(plain)


def columns(rows: Iterable[Sequence[str]], *, indent: str = "  ") -> str:
    """Lays out rows of text in columns.

    Example:
        >>> print(columns([("features", "int"), ("scale", "float")], indent=""))
        features  int
        scale     float
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(indent + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


class _Shown(str):
    """Text that `inspect.Signature` prints without quotes."""

    __repr__ = str.__str__
