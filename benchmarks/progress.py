"""How far a run has come, on standard error: a bar where rich is installed, lines otherwise."""

import sys
from types import TracebackType
from typing import Self


class Progress:
    """Shows progress; a context manager.

    Args:
      total: the number of rounds that will be made.
    """

    def __init__(self, total: int) -> None:
        self._total, self._done, self._bar = total, 0, _rich_bar()
        self._task = self._bar.add_task("", total=total) if self._bar else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def begin(self, what: str) -> None:
        """Says what is measured next."""
        if self._bar:
            self._bar.update(self._task, description=what)
        else:
            self.say(f"[{self._done}/{self._total}] {what}")

    def advance(self, rounds: int = 1) -> None:
        """Counts rounds."""
        self._done += rounds
        if self._bar:
            self._bar.advance(self._task, rounds)

    def say(self, text: str) -> None:
        """Prints a line."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def _rich_bar():
    # In a log a bar would be one line at the very end.
    if not sys.stderr.isatty():
        return None
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        return None
    return progress.Progress(
        progress.MofNCompleteColumn(),
        progress.BarColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
    )
