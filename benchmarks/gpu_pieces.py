"""What is done on a GPU, piece by piece, each in a process of its own."""

import dataclasses
import functools
import unittest
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import peers
from benchmarks.cases import Case, Size, draw
from benchmarks.measure import Task, measure
from benchmarks.parity import implementations, parity
from benchmarks.progress import Progress
from benchmarks.timing import why

KINDS = ("parity", "kit", "gated", "heads", "linear")
# What takes longest comes last, in case that the time is over.
SIZES = (
    Size(64, 1024, 512, 512),
    Size(32, 256, 128, 128),
    Size(256, 512, 256, 256),
    Size(16, 4096, 1024, 1024),
)
LINEAR_CELLS = ("min_gru", "lru")
LINEAR_SIZES = (Size(32, 1024, 512, 512), Size(8, 4096, 256, 256), Size(1, 65536, 128, 128))
MEASURED = ("gated", "heads", "linear")
_HEAD = 64
_QUANTITIES = ("forward", "gradient", "memory")


def pieces(
    kinds: Sequence[str],
    layers: Sequence[str],
    cells: Sequence[str],
    sizes: Sequence[Size],
    dtypes: Sequence[str],
) -> list[str]:
    """Names the pieces, in order.

    Example:
      >>> pieces(["parity", "gated"], ["scan_gru"], ["lstm"], [Size(2, 3, 4, 5)], ["float32"])
      ['parity/scan_gru', 'gated/lstm/2x3x4x5/float32']
    """

    def measured(kind: str, cells: Sequence[str], sizes: Sequence[Size]) -> list[str]:
        return [
            f"{kind}/{cell}/{size.batch}x{size.steps}x{size.inputs}x{size.features}/{dtype}"
            for size in sizes
            for dtype in dtypes
            for cell in cells
        ]

    def kits() -> list[str]:
        # The kernel of a gated layer is not taken at the sizes of the kit.
        return [
            f"kit/{name}/{way}"
            for name in layers
            for ways in (implementations(name),)
            for way in ways
            if way != "kernel" or "parallel" in ways
        ]

    makers: dict[str, Callable[[], list[str]]] = {
        "parity": lambda: [f"parity/{name}" for name in layers],
        "kit": kits,
        "gated": lambda: measured("gated", cells, sizes or SIZES),
        "heads": lambda: measured("heads", cells, sizes or SIZES),
        "linear": lambda: measured("linear", LINEAR_CELLS, sizes or LINEAR_SIZES),
    }
    return [name for kind in KINDS if kind in kinds for name in makers[kind]()]


def do(
    piece: str,
    libraries: Sequence[str],
    rounds: int,
    *,
    sweep: bool = True,
    prepare: bool = False,
) -> Any:
    """Does a piece, in this process.

    Args:
      piece: its name.
      libraries: whose competitors are measured.
      rounds: how often they are measured.
      sweep: whether gated layers take part with other blocks and more steps per iteration, too.
      prepare: only compile what would be measured, which fills JAX's compilation cache.

    Returns:
      What was found, as JSON can hold it.
    """
    kind, *of = piece.split("/")
    if kind == "parity":
        return parity(*of)
    if kind == "kit":
        return _kit(*of)
    import jax

    cell, size, dtype = of[0], Size.parse(of[1]), of[2]
    heads = max(1, size.features // _HEAD) if kind == "heads" else 1
    sweep = sweep and kind == "gated"
    case = Case(cell, size, dtype, jax.default_backend(), heads=heads, sweep=sweep)
    if prepare:
        return _prepare(case, libraries)
    task = Task(case, tuple(libraries), _QUANTITIES, rounds)
    with Progress(task.total_rounds) as progress:
        return [dataclasses.asdict(result) for result in measure(task, progress)]


def _kit(name: str, implementation: str) -> dict[str, str]:
    """By the name of each check: "kept", "skipped", or why it failed."""
    import jax

    import registry
    from zoo.recurrent.testing import CHECKS, Case

    build = functools.partial(
        registry.build, name, **{"features": 4, "implementation": implementation}
    )
    space = (4,) * (build().feature_axes - 1)
    case = Case(build, jax.random.normal(jax.random.key(0), (6, 3, *space, 5)))

    def run(check: Callable[[Case], None]) -> str:
        try:
            # The checks compare with each other what a GPU would otherwise multiply in two ways.
            with jax.default_matmul_precision("highest"):
                check(case)
        except unittest.SkipTest:
            return "skipped"
        except Exception as error:
            return f"{why(error)} {' '.join(str(error).split())[:500]}"
        return "kept"

    return {check.__name__: run(check) for check in CHECKS}


def _prepare(case: Case, libraries: Sequence[str]) -> list[str]:
    data, failures = draw(case), []
    for library in libraries:
        if library == "torch":
            continue
        try:
            for competitor in peers.competitors(library, case, data):
                for compiles in (competitor.checksum, competitor.memory):
                    if compiles is not None:
                        compiles()
        except Exception as error:
            failures.append(f"{library}: {why(error)}")
    return failures
