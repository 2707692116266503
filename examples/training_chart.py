"""The picture of a finished training run: learning curve, and confusion matrix if there is one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def draw(
    path: Path,
    title: str,
    losses: Sequence[float],
    accuracies: Sequence[float],
    truth: np.ndarray,
    predictions: np.ndarray,
) -> None:
    """Writes a PNG.

    Args:
      path: where to.
      title: what stands above.
      losses: training loss of every epoch.
      accuracies: test accuracy of every epoch.
      truth: int (N,), the class of every test example, from 0.
      predictions: int (N,), what was predicted.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _learning_curve(left, losses, accuracies)
    _confusion(right, truth, predictions)
    figure.savefig(path, dpi=120)


def draw_curve(
    path: Path,
    title: str,
    losses: Sequence[float],
    accuracies: Sequence[float],
    guessing: float,
) -> None:
    """Writes a PNG of the learning curve alone.

    Args:
      path: where to.
      title: what stands above.
      losses: training loss of every epoch.
      accuracies: share of right answers of every epoch.
      guessing: the share that is reached by guessing.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    figure.suptitle(title, fontsize=10, wrap=True)
    beside = _learning_curve(figure.subplots(), losses, accuracies, "right answers")
    beside.axhline(guessing, color="tab:gray", linestyle="--")
    beside.annotate(
        "guessing", (len(losses), guessing), (0, 3), textcoords="offset points", ha="right"
    )
    figure.savefig(path, dpi=120)


def _learning_curve(
    axes: Axes, losses: Sequence[float], accuracies: Sequence[float], what: str = "test accuracy"
) -> Axes:
    epochs = np.arange(1, len(losses) + 1)
    (loss,) = axes.plot(epochs, losses, color="tab:orange", label="training loss")
    axes.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    beside = axes.twinx()
    (accuracy,) = beside.plot(epochs, accuracies, color="tab:blue", label=what)
    beside.set(ylabel=what, ylim=(0, 1.05))
    axes.legend(handles=[loss, accuracy], loc="center right")
    return beside


def _confusion(axes: Axes, truth: np.ndarray, predictions: np.ndarray) -> None:
    classes = int(max(truth.max(), predictions.max())) + 1
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (truth, predictions), 1)
    axes.imshow(counts, cmap="Blues")
    dark = counts > counts.max() / 2
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if dark[row, column] else "black"
        axes.text(column, row, str(count or ""), ha="center", va="center", color=colour)
    names = np.arange(1, classes + 1)
    axes.set(xlabel="predicted speaker", ylabel="speaker")
    axes.set(xticks=names - 1, xticklabels=names, yticks=names - 1, yticklabels=names)
