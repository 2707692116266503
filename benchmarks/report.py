"""The tables of a report, as Markdown that can be read in a terminal too."""

import collections
from collections.abc import Iterable, Sequence

from benchmarks.peers import NAMES
from benchmarks.results import BASE, Report, Result, Series
from benchmarks.timing import geometric_mean

TITLES = {
    "forward": "Forward pass",
    "gradient": "Gradient of parameters and inputs",
    "compile": "Compilation of the gradient",
    "memory": "Temporary memory of the gradient",
    "eager": "Eager call, from the second on",
    "step": "One step of streaming",
}

_SUMMARY = (
    *(("gradient", library) for library in ("linen", "nnx", "haiku", "keras", "torch")),
    *(("forward", library) for library in ("linen", "nnx", "haiku", "keras", "torch")),
    ("compile", "linen"),
    ("memory", "linen"),
    ("eager", "linen"),
    ("step", "linen"),
    ("step", "torch"),
    *((quantity, "module") for quantity in ("forward", "gradient", "eager", "step")),
    *((quantity, "tree") for quantity in ("gradient", "forward", "memory", "compile", "step")),
    *((quantity, "steps") for quantity in ("gradient", "forward", "memory", "compile", "step")),
    *((quantity, "memorax") for quantity in ("gradient", "forward", "memory", "compile", "step")),
    ("step", "gated"),
)


def markdown(report: Report) -> str:
    """Writes everything that a report holds: machine, command, summary, and all tables."""
    parts = [_machine(report)]
    if report.results:
        parts.append(
            "Medians over rounds. In brackets: what a competitor takes, divided by what "
            f"`{BASE}` takes in the same round; above 1 where ours is faster or smaller."
        )
    for dtype in dict.fromkeys(result.case.dtype for result in report.results):
        parts += [*_summary(report, dtype), *_checkpoint(report, dtype), *_tables(report, dtype)]
    missing = collections.Counter(pair for r in report.results for pair in r.missing.items())
    if missing:
        lines = [
            f"- {name}, in {times} of {len(report.results)} results: {reason}"
            for (name, reason), times in missing.items()
        ]
        parts += ["### Left out", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def comparison(reports: Sequence[Report]) -> str:
    """Sums up several reports side by side: what each of them found over all cells and sizes.

    Args:
      reports: of other versions, or other processors, which head their columns.

    Returns:
      What each report is from, and a table per dtype.
    """
    labels = [_label(report) for report in reports]
    parts = [
        f"- {label}: {_software(report)}" for label, report in zip(labels, reports, strict=True)
    ]
    parts = ["\n".join(parts)]
    for dtype in dict.fromkeys(r.case.dtype for report in reports for r in report.results):
        columns = [{row[0]: row[-2:] for row in summary(report, dtype)} for report in reports]
        head = ["peer / ours"]
        for label in labels:
            head += [f"{label}: geometric mean", f"{label}: minimum"]
        rows = [
            [what, *(text for own in columns for text in own.get(what, ("–", "–")))]
            for what in dict.fromkeys(what for own in columns for what in own)
        ]
        parts += [f"### All reports, {dtype}", _table(head, rows)]
    return "\n\n".join(parts) + "\n"


def _label(report: Report) -> str:
    machine = report.machine
    device = machine["cpu"] if machine["backend"] == "cpu" else machine["device"]
    return f"jax {machine['versions']['jax']} on {device}"


def _software(report: Report) -> str:
    machine = report.machine
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if v is not None)
    return f"Python {machine['python']}, {versions}; revision {machine['revision']}"


def summary(report: Report, dtype: str) -> list[list[str]]:
    """Sums up the comparison over sizes.

    Args:
      report: what was measured.
      dtype: which results to take.

    Returns:
      Rows: what is compared; then for each cell, and for all of them if there are several, the
      geometric mean of the ratios, and the smallest one with its size.
    """
    results = [r for r in report.select() if r.case.dtype == dtype]
    rows = []
    for quantity, library in _SUMMARY:
        row = [f"{quantity}, {NAMES[library]}"]
        for group in _groups(report, dtype).values():
            found = [
                (ratio, r.case)
                for r in results
                if r.quantity == quantity
                and r.case.cell in group
                and (ratio := r.best(library)) is not None
            ]
            if not found:
                row += ["–", "–"]
                continue
            least, case = min(found, key=lambda pair: pair[0])
            where = case.shape if len(group) == 1 else f"{case.cell.upper()} {case.shape}"
            row += [
                _digits(geometric_mean([ratio for ratio, _ in found])),
                f"{_digits(least)} ({where})",
            ]
        if any(text != "–" for text in row[1:]):
            rows.append(row)
    return rows


def _groups(report: Report, dtype: str) -> dict[str, list[str]]:
    """The cells that were compared: each alone, then all of them if there are several."""
    cells = list(dict.fromkeys(r.case.cell for r in report.select() if r.case.dtype == dtype))
    groups = {cell.upper(): [cell] for cell in cells}
    return groups | {"all": cells} if len(cells) > 1 else groups


def _summary(report: Report, dtype: str) -> list[str]:
    rows = summary(report, dtype)
    if not rows:
        return []
    head = ["peer / ours"]
    for name in _groups(report, dtype):
        head += [f"{name}: geometric mean", f"{name}: minimum"]
    return [
        f"### Summary, {dtype}",
        f"The best form of each peer in relation to `{BASE}`: mean and minimum over sizes.",
        _table(head, rows),
    ]


def _tables(report: Report, dtype: str) -> list[str]:
    parts = []
    for quantity, title in TITLES.items():
        own = [r for r in report.select() if r.case.dtype == dtype and r.quantity == quantity]
        for cell in dict.fromkeys(r.case.cell for r in own):
            parts.append(f"### {title}, {cell.upper()}, {dtype}")
            parts.append(_comparison([r for r in own if r.case.cell == cell]))
    return parts


def _machine(report: Report) -> str:
    machine = report.machine
    lines = [
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB; "
        f"JAX on {machine['backend']} ({machine['device']}); {machine['system']}",
        f"- Software: {_software(report)}",
        f"- Date: {machine['date']}; programs waiting per core at the start: {machine['load']}",
        f"- Command: `{report.command}`",
    ]
    if not report.complete:
        lines.append("- The run was interrupted; these are the results so far.")
    return "\n".join(lines)


def _comparison(results: Sequence[Result]) -> str:
    names = list(dict.fromkeys(series.name for r in results for series in r.series))
    rows = []
    for result in results:
        ratios, by_name = result.ratios(), {series.name: series for series in result.series}
        row = [result.case.shape]
        for name in names:
            if name not in by_name:
                row.append("–")
                continue
            text = _amount(by_name[name].median, result.quantity)
            aside = "" if name == BASE or name not in ratios else f" ({_digits(ratios[name])})"
            row.append(text + aside)
        rows.append(row)
    return _table(["", *names], rows)


def _checkpoint(report: Report, dtype: str) -> list[str]:
    """The price of ``checkpoint_every``: memory and time, beside ours without it and nn.RNN."""
    results = [r for r in report.select(checkpoint=True) if r.case.dtype == dtype]
    parts = []
    for case in dict.fromkeys(r.case for r in results):
        found = {r.quantity: r for r in results if r.case == case}
        names = dict.fromkeys(series.name for r in found.values() for series in r.series)
        rows = []
        for name in names:
            own = {
                quantity: series
                for quantity, r in found.items()
                for series in r.series
                if series.name == name
            }
            relative = found["gradient"].ratios().get(name) if "gradient" in own else None
            rows.append(
                [
                    name,
                    _median(own.get("memory"), "memory"),
                    _median(own.get("gradient"), "gradient"),
                    "–" if relative is None else _digits(relative),
                ]
            )
        head = ["", "temporaries of the gradient", "gradient", f"time / {BASE}"]
        option = f"`checkpoint_every={case.checkpoint_every}`"
        parts += [f"### {option}, {case.cell.upper()}, {dtype}, {case.size}", _table(head, rows)]
    return parts


def _median(series: Series | None, quantity: str) -> str:
    return "–" if series is None else _amount(series.median, quantity)


def _amount(value: float, quantity: str) -> str:
    if quantity == "memory":
        return f"{_digits(value / 1e6)} MB" if value >= 1e5 else f"{_digits(value / 1e3)} kB"
    for unit, seconds in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= seconds:
            return f"{_digits(value / seconds)} {unit}"
    return f"{_digits(value * 1e6)} µs"


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value != value:
        return "–"
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{decimals}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    rule = ["-" * max(3, width) for width in widths]
    # Numbers are read from the right.
    rule[1:] = [text[:-1] + ":" for text in rule[1:]]

    def text(cells: Sequence[str]) -> str:
        first, *others = (len(mark) for mark in rule)
        padded = [cells[0].ljust(first)]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], others, strict=True)]
        return "| " + " | ".join(padded) + " |"

    return "\n".join([text(lines[0]), text(rule), *map(text, lines[1:])])
