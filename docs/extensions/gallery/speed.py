"""What the benchmark's files say of a layer beside those of other libraries, and beside others."""

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.results import BASE, Result

QUANTITIES = ("forward", "gradient")
OWN_SCAN = "nn.scan of the same step"
_OWN = ("ours", "module", "copy")  # other forms of the same layer, and no layer at all


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How long another library's layer takes, relative to ours.

    Attributes:
      processor: what it was measured on.
      jax: the version of JAX.
      dtype: of the numbers.
      peer: the other one.
      ratios: by quantity, the geometric mean over sizes of its time by ours.
      sizes: how many sizes.
    """

    processor: str
    jax: str
    dtype: str
    peer: str
    ratios: dict[str, float]
    sizes: int


def runs(folder: Path) -> list[dict[str, Any]]:
    """What is in the files of measurements in a folder."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("**/*.json")]


def comparisons(files: list[dict[str, Any]]) -> dict[str, list[Comparison]]:
    """All comparisons by registered name, from files of measurements."""
    found: dict[str, dict[tuple[str, ...], Comparison]] = defaultdict(dict)
    # Of two files with the same comparison, the younger one counts.
    for measured in sorted(files, key=lambda measured: measured["machine"]["date"]):
        groups: dict[tuple[str, str, str], dict[str, list[float]]] = {}
        for result in _results(measured):
            case = result.case
            if case.checkpoint_every is not None or getattr(case, "heads", 1) not in (None, 1):
                continue
            library = {series.name: series.library for series in result.series}
            alone = case.ours_alone and set(library.values()) == {"ours"}
            for peer, ratio in result.ratios().items():
                if alone and peer == "ours scan":
                    peer = OWN_SCAN
                elif library[peer] in _OWN:
                    continue
                if result.quantity not in QUANTITIES:
                    continue
                key = (case.cell, case.dtype, peer)
                groups.setdefault(key, {}).setdefault(result.quantity, []).append(ratio)
        machine = measured["machine"]
        for (cell, dtype, peer), ratios in groups.items():
            own = Comparison(
                processor=_processor(machine),
                jax=machine["versions"]["jax"],
                dtype=dtype,
                peer=peer,
                ratios={name: _mean(values) for name, values in ratios.items()},
                sizes=max(map(len, ratios.values())),
            )
            found[f"scan_{cell}"][own.processor, own.jax, dtype, peer] = own
    return {name: sorted(known.values(), key=_order) for name, known in found.items()}


def times(files: list[dict[str, Any]]) -> dict[str, float]:
    """How long the gradient of every layer takes, relative to that of ``scan_gru``.

    By registered name, from the run on a CPU that measured the most layers beside ``scan_gru``, and
    of those with as many, the one with the newest JAX.
    """
    best: tuple[int, tuple[int, ...], dict[str, float]] = (0, (), {})
    for measured in files:
        if measured["machine"]["backend"] == "cpu":
            found = _times(_results(measured))
            jax = _version(measured["machine"]["versions"]["jax"])
            best = max(best, (len(found), jax, found), key=lambda run: run[:2])
    return best[2]


def _times(results: Iterator[Result]) -> dict[str, float]:
    """The times in one run, where it has ``scan_gru``: a geometric mean over sizes."""
    medians: dict[Any, dict[str, float]] = defaultdict(dict)
    for result in results:
        case = result.case
        if result.quantity == "gradient" and case.checkpoint_every is None and case.heads == 1:
            for own in result.series:
                if own.name == BASE:
                    medians[case.size, case.dtype][f"scan_{case.cell}"] = own.median
    ratios: dict[str, list[float]] = defaultdict(list)
    for known in medians.values():
        for name, median in known.items():
            if "scan_gru" in known:
                ratios[name].append(median / known["scan_gru"])
    return {name: _mean(values) for name, values in ratios.items()}


def nearest(known: list[Comparison]) -> Comparison | None:
    """The comparison on a CPU, with the newest JAX, whose gradient comes nearest to ours."""
    with_gradient = [
        own for own in known if "gradient" in own.ratios and "NVIDIA" not in own.processor
    ]
    if not with_gradient:
        return None
    newest = max((own.jax for own in with_gradient), key=_version)
    return min(
        (own for own in with_gradient if own.jax == newest), key=lambda own: own.ratios["gradient"]
    )


def _results(measured: dict[str, Any]) -> Iterator[Result]:
    fields = list(measured.get("results", ()))
    for outcome in measured.get("outcomes", ()):
        fields += outcome["found"] if isinstance(outcome["found"], list) else ()
    return map(Result.from_json, fields)


def _processor(machine: dict[str, Any]) -> str:
    if machine["backend"] == "cpu":
        return f"{machine['cpu']}, {machine['cores']} cores"
    return machine["device"]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _order(own: Comparison) -> tuple[Any, ...]:
    return "NVIDIA" in own.processor, own.dtype, _version(own.jax), own.peer


def _mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))
