"""What was found on a GPU, as Markdown."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu_pieces import MEASURED
from benchmarks.parity import TOLERANCE
from benchmarks.report import markdown
from benchmarks.results import Report, Result


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a piece.

    Attributes:
      piece: its name, such as "parity/scan_gru" or "gated/lstm/64x1024x512x512/bfloat16".
      seconds: how long it took.
      found: what it found, as JSON holds it; None if it failed.
      error: why it failed, or None.
    """

    piece: str
    seconds: float
    found: Any = None
    error: str | None = None


def tables(outcomes: Sequence[Outcome], machine: dict[str, Any]) -> str:
    """Writes what was found, as Markdown."""
    parts = []
    found = {o.piece: o.found for o in outcomes if o.error is None}
    failed = [f"- {o.piece}: {o.error}" for o in outcomes if o.error]
    errors = {name.split("/")[1]: own for name, own in found.items() if name.startswith("parity/")}
    if errors:
        columns = list(dict.fromkeys(column for own in errors.values() for column in own))
        parts += ["## Distance from float64 on the CPU, of the largest entry", ""]
        parts += ["| layer | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
        parts += [
            f"| `{name}` | " + " | ".join(_distance(own, column) for column in columns) + " |"
            for name, own in errors.items()
        ]
    checks = {name: own for name, own in found.items() if name.startswith("kit/")}
    if checks:
        parts += ["", "## Conformance kit", ""]
        broken = [
            f"- {name}, {check}: {text}"
            for name, own in checks.items()
            for check, text in own.items()
            if text not in ("kept", "skipped")
        ]
        kept = sum(text == "kept" for own in checks.values() for text in own.values())
        parts += [f"{kept} checks of {len(checks)} layers and implementations kept.", *broken]
    report = Report(machine=machine, command="python -m benchmarks.gpu", complete=True)
    report.results = [
        Result.from_json(own)
        for name, results in found.items()
        if name.startswith(MEASURED)
        for own in results
    ]
    if failed:
        parts += ["", "## Failed", "", *failed]
    return markdown(report) + "\n" + "\n".join(parts) + "\n"


def _distance(errors: dict[str, float], column: str) -> str:
    if column not in errors:
        return "–"
    within = errors[column] <= TOLERANCE[column.split()[1]]
    return f"{errors[column]:.1e}" + ("" if within else " **too far**")
