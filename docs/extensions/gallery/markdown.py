"""Text of docstrings and tables in Markdown."""

import re
from collections.abc import Sequence


def inline(text: str) -> str:
    """Text in reStructuredText, as docstrings are, in Markdown.

    Example:
      >>> inline("a carry (*batch, H), see ``GatedLayer``")
      'a carry (\\\\*batch, H), see `GatedLayer`'
    """
    parts = re.split(r"(``.+?``)", text)
    return "".join(
        part[1:-1] if part.startswith("``") else re.sub(r"(?<!\\)\*", r"\\*", part)
        for part in parts
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)
