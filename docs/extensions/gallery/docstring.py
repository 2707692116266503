"""A layer's docstring taken apart: equation, options, example and advice are written there."""

import dataclasses
import inspect
import re
import textwrap

ADVICE = "When to choose it"
_SECTION = re.compile(rf"^(Attributes|Example|References|{ADVICE}):$")
_ENTRY = re.compile(r"^(\w+): (.*)$")


@dataclasses.dataclass(frozen=True)
class Docstring:
    """The parts of a docstring.

    Attributes:
      summary: the first line.
      equations: the LaTeX of each ``.. math::`` block.
      prose: the paragraphs beside the equations and sections.
      advice: when to choose the layer.
      options: what each option of the class itself means, by name.
      example: a doctest.
    """

    summary: str
    equations: tuple[str, ...]
    prose: tuple[str, ...]
    advice: str
    options: dict[str, str]
    example: str


def parse(layer: type) -> Docstring:
    """Takes the docstring of a class apart."""
    head, sections = _sections(inspect.getdoc(layer) or "")
    summary, _, body = head.partition("\n")
    equations, prose = [], []
    blocks = re.split(r"\n\s*\n", body.strip("\n"))
    for before, block in zip(["", *blocks], blocks, strict=False):
        if before.strip() == ".. math::":
            equations.append(textwrap.dedent(block).strip())
        elif block.strip() not in ("", ".. math::"):
            prose.append(_one_line(block))
    return Docstring(
        summary=summary,
        equations=tuple(equations),
        prose=tuple(prose),
        advice=_one_line(sections.get(ADVICE, "")),
        options=_entries(sections.get("Attributes", "")),
        example=sections.get("Example", ""),
    )


def aligned(equation: str) -> str:
    """Lines of an equation one below the other, each beginning at the left."""
    if "&" in equation or r"\\" not in equation:
        return equation
    lines = re.split(r"\\\\\s*", equation)
    rows = " \\\\\n".join("& " + " ".join(line.split()) for line in lines)
    return f"\\begin{{aligned}}\n{rows}\n\\end{{aligned}}"


def _sections(text: str) -> tuple[str, dict[str, str]]:
    found: dict[str, list[str]] = {"": []}
    current = ""
    for line in text.splitlines():
        if match := _SECTION.match(line):
            current = match[1]
            found[current] = []
        else:
            found[current].append(line)
    parts = {name: textwrap.dedent("\n".join(lines)).strip() for name, lines in found.items()}
    return parts.pop(""), parts


def _entries(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if match := _ENTRY.match(line):
            name = match[1]
            found[name] = match[2]
        elif name:
            found[name] += " " + line.strip()
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())
