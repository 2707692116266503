"""What a person reads about the registered names."""

import itertools
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from registry import plugins
from registry.building import build, check_options, split
from registry.lookup import entries, spec
from registry.renames import current_options
from registry.specs import Spec, layer_options
from registry.text import columns, path_text, type_text, value_text

_WIDTH = 100


def describe(
    name_or_mapping: str | Mapping[str, Any],
    /,
    *,
    input_shape: tuple[int, ...] | None = None,
    **config: Any,
) -> str:
    """Describes what a name stands for: options, shapes, papers, and the layer itself.

    Args:
        name_or_mapping: as for `registry.build`.
        input_shape: the shape of the layer's input, `(T, *batch, D)` unless the layer has another
            time axis. With it, the layer is built and its own `describe(input_shape)` adds the
            output shapes, the parameter tree and the number of parameters.
        **config: options of the layer.

    Raises:
        UnknownNameError: nothing has this name.
        LoadError: what has this name cannot be loaded.
        WrongOptionError: an option is unknown; or, with an `input_shape`, missing.

    Example:
        >>> import registry
        >>> def scan_sum(features: int, scale: float = 1.0):
        ...     "Sums over time."
        >>> with registry.temporary("acme.scan_sum", scan_sum, inputs="xs (T, *batch, D)"):
        ...     text = registry.describe("acme.scan_sum", features=8)
        >>> print(text.partition("options")[2].strip())
        features  8    int
          scale     1.0  float
    """
    name, config = split(name_or_mapping, config)
    found = spec(name)
    config = current_options(found, config)
    check_options(found.name, found.factory, config, partly=True)
    sections = [_facts(found), _options(found, config)]
    if input_shape is not None:
        sections.append(_layer(found, input_shape, config))
    return "\n\n".join(sections)


def table(pattern: str = "*", family: str | None = None, tag: str | None = None) -> str:
    """Lays out one line per name, importing nothing that the names stand for.

    Args:
        pattern: as for `registry.names`.
        family: as for `registry.names`.
        tag: as for `registry.names`.
    """
    rows = [("name", "aliases", "family", "summary")]
    rows += [
        (entry.name, ", ".join(entry.aliases), entry.family, entry.summary or f"({entry.where})")
        for entry in entries(pattern, family, tag)
    ]
    refused = _refused(plugins.last_scan().claims)
    return "\n".join([columns(rows, indent=""), *(f"ignored: {text}" for text in refused)])


def _facts(found: Spec) -> str:
    facts = {
        "name": [found.name],
        "aliases": [", ".join(found.aliases)],
        "family": [found.family],
        "tags": [", ".join(found.tags)],
        "factory": [path_text(found.factory)],
        "registered": [found.where],
        "inputs": [found.inputs],
        "outputs": [found.outputs],
        "references": found.references,
        "ignored": _refused([found.name, *found.aliases]),
    }
    lines = {label: [*map(_wrapped, filter(None, texts))] for label, texts in facts.items()}
    rows = [
        ("" if line else label, text)
        for label, texts in lines.items()
        for line, text in enumerate(itertools.chain(*texts))
    ]
    return "\n\n".join(filter(None, [found.summary, columns(rows, indent="")]))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH - 14, subsequent_indent="  ", break_long_words=False)


def _refused(wanted: Iterable[str]) -> list[str]:
    claims = plugins.last_scan().claims
    return [
        f"the {claim.where} claims {name!r}, but only built-ins have names without a dot"
        for name in wanted
        if not plugins.allowed(name)
        for claim in claims.get(name, ())
    ]


def _options(found: Spec, config: Mapping[str, Any]) -> str:
    parameters = layer_options(found.factory)
    if parameters is None:
        return "options: the factory's signature cannot be read"
    rows = []
    for option, parameter in parameters.items():
        value = config.get(option, parameter.default)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            option, text = str(parameter).partition(":")[0], ""
        else:
            text = "required" if value is parameter.empty else value_text(value)
        rows.append((option, text, type_text(parameter.annotation)))
    if not rows:
        return "options: none"
    lines = columns(rows).splitlines()
    # What is too long for a line is a type with many alternatives, or a value that was given.
    cut = [line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}..." for line in lines]
    return "\n".join(["options", *cut])


def _layer(found: Spec, input_shape: tuple[int, ...], config: Mapping[str, Any]) -> str:
    shape = tuple(input_shape)
    if not all(isinstance(size, int) for size in shape):
        raise TypeError(
            f"expected input_shape as integers, like (100, 32, 16), got {input_shape!r}"
        )
    layer = build(found.name, **config)
    describe_layer = getattr(layer, "describe", None)
    if not callable(describe_layer):
        return (
            f"{type(layer).__name__} has no method describe(input_shape), so its output shapes and "
            "parameters are not shown"
        )
    return str(describe_layer(shape))
