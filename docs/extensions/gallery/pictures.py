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
    from matplotlib.ticker import NullLocator

    colours = COLOURS[theme]
    # With letters as paths it looks the same everywhere, and with a salt of its own in every build.
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": name, "font.size": 11}):
        figure = Figure(figsize=(7, 3.6))
        axes = figure.add_axes((0.11, 0.15, 0.87, 0.82))
        for other, values in norms.items():
            if other != name:
                axes.semilogy(_relative(values), color=colours["others"], linewidth=0.8)
        axes.semilogy(_relative(norms[name]), color=colours["line"], linewidth=2.2, label=name)
        axes.axhline(0.01, color=colours["text"], linewidth=0.8, linestyle=":")
        axes.set(ylim=(_LEAST, 10), xlim=(0, len(norms[name]) - 1))
        axes.set_xlabel("steps before the last one", color=colours["text"])
        axes.set_ylabel("gradient, relative to the last step", color=colours["text"])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.tick_params(colors=colours["text"])
        for side, spine in axes.spines.items():
            spine.set(color=colours["text"], visible=side in ("left", "bottom"))
        axes.legend(frameon=False, loc="upper right", labelcolor=colours["text"])
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def _relative(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.nan) / values[0]
