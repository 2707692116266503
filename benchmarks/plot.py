"""The picture of a report: ratios to ours, by size."""

import math
from pathlib import Path

from benchmarks.peers import NAMES
from benchmarks.report import TITLES
from benchmarks.results import BASE, Report, Result

# Readable for people who do not see red and green apart (Okabe & Ito).
_COLOURS = (
    "#0072B2",
    "#56B4E9",
    "#009E73",
    "#E69F00",
    "#D55E00",
    "#999999",
    "#CCCCCC",
    "#CC79A7",
    "#F0E442",
)


def plot(report: Report, dtype: str, path: Path) -> None:
    """Draws one panel per quantity and cell, a group of bars per size, and a line where equal.

    Args:
      report: what was measured; there has to be a comparison with ours in it.
      dtype: which results to take.
      path: the PNG to write.

    Raises:
      ImportError: matplotlib is not installed.
      ValueError: there is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    results = [r for r in report.select() if r.case.dtype == dtype and r.ratios()]
    quantities = [q for q in TITLES if any(r.quantity == q for r in results)]
    cells = list(dict.fromkeys(r.case.cell for r in results))
    if not results:
        raise ValueError(f"no comparison with {BASE!r} in {dtype} was measured")
    labels = _labels(results)
    colours = dict(zip(labels, _COLOURS, strict=False))

    figure = Figure(figsize=(7.5 * len(cells), 3.1 * len(quantities) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(quantities), len(cells), squeeze=False)
    for row, quantity in zip(axes, quantities, strict=True):
        for axis, cell in zip(row, cells, strict=True):
            own = [r for r in results if r.quantity == quantity and r.case.cell == cell]
            _panel(axis, own, colours)
            axis.set_title(f"{TITLES[quantity]}, {cell.upper()}", fontsize=11)
    machine = report.machine
    device = machine["cpu"] if machine["backend"] == "cpu" else machine["device"]
    handles = [_patch(colours[label]) for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(
        f"Peer divided by {BASE}, {dtype}: above 1, ours is faster or smaller\n"
        f"{device}, {machine['cores']} cores, jax {machine['versions']['jax']}",
        fontsize=12,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _labels(results: list[Result]) -> list[str]:
    """Our other implementations one by one, and every peer by its best form."""
    names = [s.name for r in results for s in r.series if s.library == "ours" and s.name != BASE]
    others = [library for library in NAMES if library != "ours"]
    there = [library for library in others if any(r.best(library) for r in results)]
    return [*dict.fromkeys(NAMES[library] for library in there), *dict.fromkeys(names)]


def _panel(axis, results: list[Result], colours: dict[str, str]) -> None:
    width = 0.85 / len(colours)
    for i, (label, colour) in enumerate(colours.items()):
        for place, result in enumerate(results):
            ratio = _ratio(result, label)
            if ratio is None or not ratio > 0.0:
                continue
            left = place + (i - (len(colours) - 1) / 2) * width
            # Bars of a logarithmic axis start at 1: up is a win for ours, down a loss.
            axis.bar(left, ratio - 1.0, width, bottom=1.0, color=colour)
    axis.axhline(1.0, color="black", linewidth=1.0)
    axis.set_yscale("log", base=2)
    low, high = (math.log2(end) for end in axis.get_ylim())
    low, high = min(math.floor(low), -1), max(math.ceil(high), 1)
    axis.set_ylim(2.0**low, 2.0**high)
    every = -(-(high - low) // 6)
    ticks = [2.0**power for power in range(low, high + 1) if power % every == 0]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.yaxis.grid(True, color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    names = [str(r.case.size).replace(" D", "\nD") for r in results]
    axis.set_xticks(range(len(results)), names, fontsize=8)
    axis.tick_params(axis="x", length=0)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    axis.set_ylabel("ratio to ours", fontsize=9)


def _ratio(result: Result, label: str) -> float | None:
    for library, name in NAMES.items():
        if name == label:
            return result.best(library)
    return result.ratios().get(label)


def _patch(colour: str):
    from matplotlib.patches import Patch

    return Patch(color=colour)
