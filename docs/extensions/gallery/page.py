"""The page of one layer."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import registry
from docs.extensions.gallery import (
    conversions,
    docstring,
    example,
    layers,
    memory,
    options,
    shapes,
    speed,
)
from docs.extensions.gallery.markdown import inline, table

_SEEN = 64
"""D and H where numbers of parameters are given."""


def write(
    name: str,
    docs: Path,
    measured: Mapping[str, list[speed.Comparison]],
    norms: Mapping[str, np.ndarray],
) -> str:
    """Returns the page in Markdown.

    Args:
      name: the registered name.
      docs: the folder of the pages.
      measured: comparisons with other libraries.
      norms: gradients by lag.
    """
    written = docstring.parse(layers.layer_class(name))
    sections = {
        "": _head(name, written),
        "When to choose it": inline(written.advice),
        "Equation" if written.equations else "What it does": _equation(written),
        "Parameters": _parameters(name),
        "Carry": _carry(name),
        "Options": _options(name),
        "Example": f"```pycon\n{example.session(written.example, name)}\n```",
        "How far back it remembers": _memory(name, norms),
        "Speed": _speed(measured.get(name, [])),
        "Weights of other libraries": _conversions(name, docs),
        "Papers": _papers(name),
    }
    return "\n\n".join(
        f"## {title}\n\n{text}" if title else text for title, text in sections.items() if text
    )


def _head(name: str, written: docstring.Docstring) -> str:
    spec = registry.spec(name)
    aliases = " and ".join(f"`{alias}`" for alias in spec.aliases)
    also = f" It is also called {aliases}." if aliases else ""
    path = f"zoo.recurrent.{layers.layer_class(name).__name__}"
    return (
        f"# {name}\n\n{inline(written.summary)}{also}\n\n"
        f"Built by `registry.build({_call(name)})`; the class is {{py:class}}`{path}`."
    )


def _call(name: str) -> str:
    inner = {"stack": ', num_layers=2, layer="scan_gru"', "bidirectional": ', layer="scan_gru"'}
    return f'"{name}"{inner.get(name, "")}, features=64'


def _equation(written: docstring.Docstring) -> str:
    blocks = [f"$$\n{docstring.aligned(text)}\n$$" for text in written.equations]
    return "\n\n".join([*blocks, *map(inline, written.prose)])


def _parameters(name: str) -> str:
    found = shapes.parameters(name)
    rows = [(f"`{path}`", f"`{shapes.text(shape)}`") for path, shape in found]
    number = f"{shapes.count(name, _SEEN, _SEEN):,}"
    of_gru = "" if layers.is_leaf(name) else ", made of `scan_gru`"
    windows = " and windows of 3 × 3" if layers.is_conv(name) else ""
    narrow = " Where D = H there are fewer." if shapes.narrower(name) else ""
    return (
        f"With D input features and H hidden features{windows}{of_gru}:\n\n"
        f"{table(('Parameter', 'Shape'), rows)}\n\n"
        f"Together they hold ${shapes.total([shape for _, shape in found])}$ numbers.{narrow} "
        f"For D = H = {_SEEN} they hold {number}."
    )


def _carry(name: str) -> str:
    spec = registry.spec(name)
    total = shapes.total([shape for _, shape in shapes.carry(name)])
    where = " at every position" if layers.is_conv(name) else ""
    return (
        f"- A call takes `{spec.inputs}`.\n- It returns `{spec.outputs}`.\n\n"
        f"A sequence's carry holds ${total}$ numbers{where}."
    )


def _options(name: str) -> str:
    own, shared = options.rows(name)
    text = _option_table(own)
    if shared:
        text += (
            "\n\n<details>\n<summary>Options that other layers have too</summary>\n\n"
            f"{_option_table(shared)}\n\n</details>"
        )
    if not layers.is_leaf(name):
        text += "\n\nEvery other option goes to the layers inside."
    return text


def _option_table(rows: list[options.Row]) -> str:
    cells = [(f"`{row.name}`", f"`{row.default}`", inline(row.meaning)) for row in rows]
    return table(("Option", "Default", "Meaning"), cells)


def _memory(name: str, norms: Mapping[str, np.ndarray]) -> str:
    if name not in norms:
        return "As far as the layers that it is made of."
    lag = memory.reach(norms[name])
    if lag is None:
        falls = f"stays above 1 % of that value for all {memory.STEPS - 1} steps"
    else:
        falls = f"is less than 1 % of that value from {lag} steps back"
    alt = f"Gradient of the last output of {name} by lag, in front of those of the other layers"
    images = "\n\n".join(
        f"```{{image}} images/{name}-{theme}.svg\n:class: only-{theme}\n:alt: {alt}\n```"
        for theme in ("light", "dark")
    )
    return (
        f"{images}\n\nThe line is the norm of the gradient of the last output with respect to the "
        "input of each step, divided by that for the last step; other layers are grey. The "
        f"gradient {falls}. Parameters are as they are drawn by default, inputs are normal noise, "
        f"D = H = {memory.FEATURES}, T = {memory.STEPS}, and the line is the mean over "
        f"{memory.SEEDS} draws. Training changes it: gates learn to stay open."
    )


def _speed(known: list[speed.Comparison]) -> str:
    if not known:
        return (
            "The files of measurements have no times of this layer beside another library's. What "
            "was measured is on the pages about [performance](../performance.md)."
        )
    rows = [
        (
            own.peer,
            f"{own.processor}, jax {own.jax}, {own.dtype}",
            *(f"{own.ratios[q]:.2f}" if q in own.ratios else "–" for q in speed.QUANTITIES),
            str(own.sizes),
        )
        for own in known
    ]
    heads = ("Beside", "Measured on", "Forward pass", "Gradient", "Sizes")
    return (
        "How many times as long the other one takes, as the geometric mean over sizes; above 1 "
        "this layer is faster.\n\n"
        f"{table(heads, rows)}\n\nSingle sizes and times are on the pages about "
        "[performance](../performance.md)."
    )


def _conversions(name: str, docs: Path) -> str:
    found = conversions.conversions(docs / "convert.md", name)
    if not found:
        if layers.is_leaf(name):
            return "No converter leads to it; [convert](../convert.md) says why where it is known."
        return (
            "Converters build it where a model has several layers or two directions: "
            "[convert](../convert.md)."
        )
    lines = []
    for own in found:
        roles = " and ".join(f"{{py:func}}`~zoo.recurrent.convert.{f}`" for f in own.functions)
        lines.append(f"- {own.library}: {roles}" + (f" ({own.remark})" if own.remark else ""))
    return "\n".join(lines) + "\n\nMore about them: [convert](../convert.md)."


def _papers(name: str) -> str:
    def linked(paper: str) -> str:
        paper = re.sub(r"arXiv:([\d.]+\d)", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)
        return re.sub(r"doi:([\w./]+\w)", r"[doi:\1](https://doi.org/\1)", paper)

    return "\n".join(f"- {linked(paper)}" for paper in registry.spec(name).references)
