"""The table that compares all layers."""

from collections.abc import Mapping

import numpy as np

import registry
from docs.extensions.gallery import layers, memory, shapes, speed
from docs.extensions.gallery.markdown import table

_INTRODUCTION = """# Layers

Every registered layer has a page: what it is for, its equation, parameters and options, an example,
and how far back it remembers. All of it is read off the layers and run when the pages are made."""

_NOTES = """- **Memory**: from how many steps back on the gradient of the last output is less
  than 1 % of that for the last input, with parameters as they are drawn by default (H = 32,
  T = 256, mean over {seeds} draws). Training changes it; it says where training starts from.
- **Parallel**: whether all steps can be computed at once, in a tree over time.
- **State**: the numbers that one sequence keeps from step to step; of convolutional layers at every
  position.
- **Parameters**: with D input features, H hidden features, and windows of 3 × 3 where there are
  any; then the number for D = H = 64.
- **Time**: how long the gradient takes, in gradients of `scan_gru`, in one run on a CPU (B = 32,
  T = 256, D = H = 128). Layers were measured one after another on a shared machine, so that
  differences of a third mean little. Convolutional layers do other work.
- **Peer**: how many times as long the fastest comparable layer takes for its gradient; above 1 this
  project's is faster. The layer's page says which it is: another library's, or where there is none,
  the same step in a plain `nn.scan`."""


def write(
    measured: Mapping[str, list[speed.Comparison]],
    times: Mapping[str, float],
    norms: Mapping[str, np.ndarray],
) -> str:
    """Returns the page in Markdown."""
    rows = [_row(name, measured.get(name, []), times.get(name), norms[name]) for name in norms]
    heads = ("Layer", "Memory", "Parallel", "State", "Parameters", "D = H = 64", "Time", "Peer")
    composites = [name for name in layers.names() if name not in norms]
    made_of = [f"- [{name}]({name}.md): {registry.spec(name).summary}" for name in composites]
    contents = "\n".join(layers.names())
    return "\n\n".join(
        [
            _INTRODUCTION,
            f"```{{table}}\n:class: compact\n\n{table(heads, rows)}\n```",
            _NOTES.format(seeds=memory.SEEDS),
            "\n".join(["Layers that are made of others:\n", *made_of]),
            f"```{{toctree}}\n:hidden:\n\n{contents}\n```",
        ]
    )


def _row(
    name: str, known: list[speed.Comparison], time: float | None, norms: np.ndarray
) -> tuple[str, ...]:
    found = [shape for _, shape in shapes.parameters(name)]
    near = speed.nearest(known)
    lag = memory.reach(norms)
    return (
        f"[{name}]({name}.md)",
        f"> {len(norms) - 1}" if lag is None else str(lag),
        "yes" if layers.is_parallel(name) else "no",
        f"${shapes.total([shape for _, shape in shapes.carry(name)])}$",
        f"${shapes.total(found)}$",
        f"{shapes.count(name, 64, 64):,}",
        "–" if time is None else f"{time:.2f}",
        "–" if near is None else f"{near.ratios['gradient']:.2f}",
    )
