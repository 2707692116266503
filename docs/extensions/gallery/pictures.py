"""The picture of what a layer remembers, in front of what the others do."""

import io
from collections.abc import Mapping

import numpy as np

_LEAST = 1e-6
COLOURS = {
    "light": {"line": "#0a6ebd", "text": "#333333", "others": "#bbbbbb"},
    "dark": {"line": "#6cb8ff", "text": "#dddddd", "others": "#5a5a5a"},
}


def draw(name: str, norms: Mapping[str, np.ndarray], theme: str) -> bytes:
    """Draws a layer's gradients by lag, relative to lag 0, as SVG on a transparent ground.

    Args:
      name: the layer; the others are drawn behind it.
      norms: the gradients of every layer.
      theme: "light" or "dark", the ground that it is for.
    """
    import matplotlib
    from matplotlib.figure import Figure

    colours = COLOURS[theme]
    # Text stays text, and two builds give the same file.
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": name, "font.size": 11}):
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for other, values in norms.items():
            if other != name:
                axes.semilogy(_relative(values), color=colours["others"], linewidth=0.8)
        axes.semilogy(_relative(norms[name]), color=colours["line"], linewidth=2.2, label=name)
        axes.axhline(0.01, color=colours["text"], linewidth=0.8, linestyle=":")
        axes.set(
            xlabel="steps before the last one",
            ylabel="gradient, relative to the last step",
            ylim=(_LEAST, 10),
            xlim=(0, len(norms[name]) - 1),
        )
        axes.xaxis.label.set_color(colours["text"])
        axes.yaxis.label.set_color(colours["text"])
        axes.tick_params(colors=colours["text"], which="both")
        for side in ("left", "bottom"):
            axes.spines[side].set_color(colours["text"])
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        legend = axes.legend(frameon=False, loc="upper right", labelcolor=colours["text"])
        legend.set_in_layout(False)
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def _relative(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.nan) / values[0]
