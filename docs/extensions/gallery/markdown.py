"""Text of docstrings and tables in Markdown."""

import re
from collections.abc import Sequence

from docs.extensions import reference


def inline(text: str) -> str:
    """Text of a docstring, in reStructuredText, as Markdown.

    Names of classes that have a reference page become links to it.
    """
    parts = re.split(r"(``.+?``)", text)
    return "".join(
        _code(part[2:-2]) if part.startswith("``") else re.sub(r"(?<!\\)\*", r"\\*", part)
        for part in parts
    )


def _code(text: str) -> str:
    path = reference.links().get(text)
    return f"{{py:class}}`{text} <{path}>`" if path else f"`{text}`"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)
