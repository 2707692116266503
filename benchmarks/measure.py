"""Measures cases: assembles the competitors, lets them prove that they do the same, takes times."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from benchmarks import peers
from benchmarks.cases import Case, Data, draw
from benchmarks.peers import NAMES, Competitor
from benchmarks.progress import Progress
from benchmarks.results import Result, Series
from benchmarks.timing import interleave, why

QUANTITIES = ("forward", "gradient", "compile", "memory", "eager", "step")

# These take up to seconds per call, and vary less than what takes microseconds.
_SLOW = ("compile", "eager")

# Per output; wrong equations or gates in a wrong order are off by about 1.
_TOLERANCE = {"float32": 0.01, "tensorfloat32": 0.1, "bfloat16": 0.1}


@dataclasses.dataclass(frozen=True)
class Task:
    """A case, who takes part, and what is wanted of them.

    Attributes:
      case: the problem.
      libraries: whose competitors take part.
      quantities: what is measured, some of ``QUANTITIES``.
      rounds: how often; what takes long is measured a third as often.
    """

    case: Case
    libraries: tuple[str, ...]
    quantities: tuple[str, ...]
    rounds: int

    def rounds_of(self, quantity: str) -> int:
        """How often a quantity is measured."""
        if quantity == "memory":
            return 1
        return -(-self.rounds // 3) if quantity in _SLOW else self.rounds

    @property
    def total_rounds(self) -> int:
        """All rounds of the task."""
        return sum(map(self.rounds_of, self.quantities))


def measure(task: Task, progress: Progress) -> Iterator[Result]:
    """Measures one case.

    Who cannot be imported, fails, or computes something else is left out, and the result says so.

    Args:
      task: what to do.
      progress: told about every round.

    Yields:
      One result per quantity.
    """
    case, data = task.case, draw(task.case)
    with contextlib.ExitStack() as stack:
        progress.begin(f"{case}: preparing")
        found, missing = _assemble(task, data, stack)
        for name, reason in missing.items():
            progress.say(f"{case}: without {name}: {reason}")
        for quantity in task.quantities:
            progress.begin(f"{case}: {quantity}")
            values, failures = _values(task, quantity, found, progress)
            for name, reason in failures.items():
                progress.say(f"{case}: {quantity}: {name} failed: {reason}")
            yield Result(
                case=case,
                quantity=quantity,
                series=[
                    Series(c.name, c.library, values[c.name]) for c in found if c.name in values
                ],
                missing=missing | failures,
            )


def _assemble(
    task: Task, data: Data, stack: contextlib.ExitStack
) -> tuple[list[Competitor], dict[str, str]]:
    found: list[Competitor] = []
    missing: dict[str, str] = {}
    expected: tuple[str, float] | None = None
    slack = _TOLERANCE[task.case.dtype] * data.cotangent.size**0.5
    for library in task.libraries:
        try:
            made = peers.competitors(library, task.case, data)
        except Exception as error:
            missing[NAMES[library]] = why(error)
            continue
        for competitor in made:
            stack.callback(competitor.close)
            try:
                checksum = competitor.checksum and competitor.checksum()
            except Exception as error:
                missing[competitor.name] = why(error)
                continue
            if checksum is not None:
                expected = expected or (competitor.name, checksum)
                # Written so that NaN is refused as well.
                if not abs(checksum - expected[1]) <= slack:
                    missing[competitor.name] = (
                        f"computes something else than {expected[0]}: outputs times cotangents "
                        f"sum up to {checksum:.6g}, expected {expected[1]:.6g} ± {slack:.2g}"
                    )
                    continue
            found.append(competitor)
    return found, missing


def _values(
    task: Task, quantity: str, found: Sequence[Competitor], progress: Progress
) -> tuple[dict[str, list[float]], dict[str, str]]:
    able = {c.name: getattr(c, quantity) for c in found if getattr(c, quantity) is not None}
    if quantity != "memory":
        return interleave(
            able,
            task.rounds_of(quantity),
            seconds=0.0 if quantity in _SLOW else 0.02,
            after_round=progress.advance,
        )
    values: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    for name, memory in able.items():
        try:
            values[name] = [float(memory())]
        except Exception as error:
            failures[name] = why(error)
    progress.advance()
    return values, failures
