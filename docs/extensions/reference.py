"""A reference page for every public module, with an entry for every public name."""

import abc
import functools
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import flax.linen as nn

from docs.extensions import public
from docs.extensions.files import write_changed
from registry.text import signature_text

FOLDER = "reference"
BASES = "options"
"""The page of the classes that layers inherit their options from."""


def pages() -> dict[str, str]:
    """The text of every page in reStructuredText, by file name."""
    written = {f"{module}.rst": _page(module) for module in public.modules()}
    return {**written, f"{BASES}.rst": _bases(), "index.rst": _index()}


@functools.cache
def links() -> dict[str, str]:
    """Where the classes are described that docstrings call by their bare names."""
    bases = public.base_classes()
    found = {base.__name__: f"{base.__module__}.{base.__qualname__}" for base in bases}
    for module in public.modules():
        loaded = importlib.import_module(module)
        for name in public.names(module):
            if inspect.isclass(getattr(loaded, name)):
                found.setdefault(name, f"{module}.{name}")
    return found


def setup(app: Any) -> dict[str, Any]:
    """Writes the pages before Sphinx looks for documents."""
    app.connect("builder-inited", _write)
    # Before napoleon, which takes a colon in an unmarked piece of code for the end of a type.
    app.connect("autodoc-process-docstring", _docstring, priority=400)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write(app: Any) -> None:
    write_changed(Path(app.srcdir) / FOLDER, pages())


def _index() -> str:
    lines = [f"   {name}" for name in [*public.modules(), BASES]]
    return "\n".join(
        [
            *_title("Reference"),
            "Every public name, found in the packages themselves. What is not here is internal.",
            "",
            ".. toctree::",
            "   :maxdepth: 1",
            "",
            *lines,
            "",
        ]
    )


def _page(module: str) -> str:
    loaded = importlib.import_module(module)
    parts = [*_title(module), *_prose(inspect.getdoc(loaded) or ""), "", f".. module:: {module}"]
    parts += ["   :no-index-entry:", ""]
    entries = {name: _entry(f"{module}.{name}", getattr(loaded, name)) for name in _names(module)}
    for kind, title in _SECTIONS.items():
        own = [text for own_kind, text in entries.values() if own_kind == kind]
        if own:
            parts += ["", *_title(title, "-"), *own]
    return "\n".join(parts) + "\n"


def _names(module: str) -> list[str]:
    return sorted(public.names(module), key=str.lower)


_SECTIONS = {
    "layer": "Layers",
    "class": "Classes",
    "exception": "Errors",
    "function": "Functions",
    "data": "Constants",
}


def _entry(path: str, value: Any) -> tuple[str, str]:
    if inspect.isclass(value) and issubclass(value, Exception):
        return "exception", f".. autoexception:: {path}\n"
    if inspect.isclass(value) and issubclass(value, nn.Module):
        whole = path.endswith(".RecurrentLayer")
        return ("class" if whole else "layer"), _class(path, whole)
    if inspect.isclass(value):
        return "class", _class(path, True)
    if callable(value) and hasattr(value, "__name__"):
        return "function", f".. autofunction:: {path}\n"
    return "data", f".. autodata:: {path}\n   :no-value:\n"


def _class(path: str, members: bool) -> str:
    shown = "   :members:\n   :special-members: __call__\n" if members else ""
    return f".. autoclass:: {path}\n{shown}"


def _bases() -> str:
    parts = [
        *_title("Options that layers share"),
        "The options of a layer are its own and those of the classes below that it inherits from.",
        "",
    ]
    for base in public.base_classes():
        parts.append(_class(f"{base.__module__}.{base.__qualname__}", False))
    return "\n".join(parts)


def _title(text: str, line: str = "=") -> list[str]:
    return [text, line * len(text), ""]


def _prose(text: str) -> list[str]:
    """A module's docstring: its indented blocks are code, whether it says so or not."""
    lines: list[str] = []
    for block in re.split(r"\n{2,}", text):
        if block.startswith("    "):
            if lines and not lines[-2].startswith("    "):
                lines += [".. code-block:: python", ""]
            lines += [*block.split("\n"), ""]
        else:
            paragraph, _, code = block.partition("\n    ")
            lines += [*_escaped(re.sub(r"::$", ":", paragraph).split("\n")), ""]
            if code:
                lines += [".. code-block:: python", "", *f"    {code}".split("\n"), ""]
    return lines


def _docstring(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    lines[:] = _escaped(lines)


def _escaped(lines: list[str]) -> list[str]:
    """Shapes like (*batch, D) are text: their star is no emphasis; code between backticks is code.

    What is a name alone stays as it is, and becomes a link. Blocks of code and doctests stay, too.
    """
    text: list[str] = []
    found: list[str] = []
    block: int | None = None  # how far the line is indented that a block of code belongs to
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indent <= block:
            block = None
        if block is None and ">>>" not in line:
            text.append(line)
            block = indent if line.rstrip().endswith("::") else None
        else:
            found += [*_marked(text), line]
            text = []
    return found + _marked(text)


_MARKED = re.compile(r"``.+?``|`[^`]+`|(?<=[(\s])\*(?=[a-z_]+[,)])", flags=re.DOTALL)


def _marked(lines: list[str]) -> list[str]:
    return _MARKED.sub(_mark, "\n".join(lines)).split("\n") if lines else []


def _mark(match: re.Match[str]) -> str:
    code = match[0]
    if code == "*":
        return r"\*"
    name = code.strip("`")
    if path := links().get(name):
        return f":py:class:`{name} <{path}>`"
    return code if re.fullmatch(r"``.*``|`[\w.]+`", code, re.DOTALL) else f"`{code}`"


def _signature(
    app: Any, what: str, name: str, value: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """A layer's options as the registry shows them, without what every Flax module takes."""
    module = what == "class" and inspect.isclass(value) and issubclass(value, nn.Module)
    if module or hasattr(value, "__signature__"):
        return signature_text(value), ""
    if what == "class" and type(value) not in (type, abc.ABCMeta) and "__init__" in vars(value):
        # Where a class of classes makes the instances, its signature says nothing.
        from sphinx.util import inspect as signatures  # tests read this file without Sphinx

        own = signatures.signature(value.__init__, bound_method=True)
        return signatures.stringify_signature(
            own, show_return_annotation=False, unqualified_typehints=True
        ), ""
    return None
