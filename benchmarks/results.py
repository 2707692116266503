"""What was measured, as data, and its JSON."""

import dataclasses
import json
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.timing import median_ratio

BASE = "ours auto"
"""The competitor that ratios are relative to."""


@dataclasses.dataclass(frozen=True)
class Series:
    """What one competitor took.

    Attributes:
      name: such as "nn.RNN LSTMCell".
      library: what it belongs to, such as "linen".
      values: seconds of every round, or one number of bytes.
    """

    name: str
    library: str
    values: list[float]

    @property
    def median(self) -> float:
        """The median over rounds."""
        return statistics.median(self.values)


@dataclasses.dataclass(frozen=True)
class Result:
    """One quantity of one case.

    Attributes:
      case: what was done.
      quantity: "forward", "gradient", "compile", "memory", "eager" or "step".
      series: what everybody took.
      missing: why somebody is not among them, by name.
    """

    case: Case
    quantity: str
    series: list[Series]
    missing: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Result":
        """Makes a result of what ``dataclasses.asdict`` made of one."""
        series = [Series(**own) for own in fields["series"]]
        return cls(**{**fields, "case": Case.from_json(fields["case"]), "series": series})

    def ratios(self) -> dict[str, float]:
        """By name, the ratio to ours: above 1 where ours is faster or smaller.

        Empty where ours was not measured.
        """
        base = next((own for own in self.series if own.name == BASE), None)
        if base is None:
            return {}
        return {own.name: median_ratio(own.values, base.values) for own in self.series}

    def best(self, library: str) -> float | None:
        """The ratio of a library's best competitor to ours, or None where it has none."""
        ratios = self.ratios()
        own = [ratios[s.name] for s in self.series if s.library == library and s.name in ratios]
        return min(own, default=None)


@dataclasses.dataclass
class Report:
    """Everything that one run found.

    Attributes:
      machine: where it ran, see ``benchmarks.machine``.
      command: the command line.
      results: in the order in which they were measured.
      complete: whether everything asked for was measured.
    """

    machine: dict[str, Any]
    command: str
    results: list[Result] = dataclasses.field(default_factory=list)
    complete: bool = False

    def select(self, checkpoint: bool = False) -> Iterator[Result]:
        """The results of the comparison, or those about ``checkpoint_every``."""
        return (r for r in self.results if (r.case.checkpoint_every is not None) == checkpoint)

    def save(self, path: Path) -> None:
        """Writes JSON, whole or not at all."""
        write_whole(path, json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Reads what ``save`` wrote.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: it is not such a file.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            results = [Result.from_json(own) for own in fields.pop("results")]
            return cls(results=results, **fields)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"expected a JSON that benchmarks wrote, got {path} "
                f"({type(error).__name__}: {error})"
            ) from error


def write_whole(path: Path, text: str) -> None:
    """Writes a file; whoever reads it meets the old one or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".draft")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # mkstemp makes files that nobody else may read.
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
