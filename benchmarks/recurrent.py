"""Compares the layers with those of other libraries, on the same work, in one run.

    python -m benchmarks.recurrent                       everything; about 25 minutes on two cores
    python -m benchmarks.recurrent --quick               a look whether all is well, a few minutes
    python -m benchmarks.recurrent --markdown            the tables of the last run again
    python -m benchmarks.recurrent --from old.json,new.json    two runs side by side

Ours (every implementation), nn.RNN, nnx.RNN, haiku, Keras on JAX and PyTorch, whichever of them is
installed (pip install -e '.[bench]'), take turns: A B C, B C A, ... Ratios are taken within a round
and above 1 where ours is faster. JSON, Markdown and a picture are written to --out. Ctrl-C keeps
what is finished. On a GPU, bfloat16 and larger sizes are added.
"""

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from absl import app, flags

from benchmarks import machine
from benchmarks.cases import DTYPES, GATES, Case, Size
from benchmarks.measure import QUANTITIES, Task, measure
from benchmarks.peers import LIBRARIES
from benchmarks.plot import plot
from benchmarks.progress import Progress
from benchmarks.report import comparison, markdown
from benchmarks.results import Report, Result

SIZES = (
    Size(32, 256, 128, 128),
    Size(32, 256, 256, 256),
    Size(64, 128, 512, 512),
    Size(1, 1024, 64, 64),
    Size(128, 128, 32, 64),
    Size(16, 2048, 64, 128),
)
GPU_SIZES = (Size(64, 1024, 512, 512), Size(256, 512, 256, 256), Size(16, 4096, 1024, 1024))
QUICK_SIZES = (Size(8, 64, 32, 32), Size(1, 128, 16, 16))

CHECKPOINT_EVERY = 64
CHECKPOINT_SIZE = Size(32, 4096, 128, 128)
QUICK_CHECKPOINT_SIZE = Size(8, 512, 32, 32)


def plan(
    sizes: Sequence[Size],
    cells: Sequence[str],
    dtypes: Sequence[str],
    libraries: Sequence[str],
    quantities: Sequence[str],
    rounds: int,
    platform: str,
    checkpoint_size: Size = CHECKPOINT_SIZE,
) -> list[Task]:
    """Lists what is to be measured.

    Args:
      sizes: of the comparison.
      cells: "gru", "lstm", or others of our layers, see ``Case``.
      dtypes: some of ``DTYPES``.
      libraries: some of ``LIBRARIES``.
      quantities: some of ``QUANTITIES``, and "checkpoint".
      rounds: how often everything is measured.
      platform: "cpu" or "gpu".
      checkpoint_size: where ``checkpoint_every`` is measured.

    Returns:
      The tasks, in order.
    """
    compared = tuple(name for name in QUANTITIES if name in quantities)
    tasks = []
    if compared:
        tasks += [
            Task(Case(cell, size, dtype, platform), tuple(libraries), compared, rounds)
            for dtype in dtypes
            for size in sizes
            for cell in cells
        ]
    if "checkpoint" in quantities:
        own = tuple(name for name in libraries if name in ("ours", "linen"))
        tasks += [
            Task(
                Case(cell, checkpoint_size, dtype, platform, CHECKPOINT_EVERY),
                own,
                ("gradient", "memory"),
                rounds,
            )
            for dtype in dtypes
            for cell in cells
        ]
    return tasks


def collect(
    report: Report,
    tasks: Iterable[Task],
    path: Path,
    progress: Progress,
    measure: Callable[[Task, Progress], Iterator[Result]] = measure,
) -> None:
    """Measures tasks into a report, which is written after each of them.

    On Ctrl-C what is finished is written, and the report stays incomplete.

    Args:
      report: gains the results.
      tasks: what to measure.
      path: the JSON to write.
      progress: told how far it is.
      measure: measures one task.
    """
    try:
        for task in tasks:
            for result in measure(task, progress):
                report.results.append(result)
            report.save(path)
        report.complete = True
    except KeyboardInterrupt:
        progress.say("interrupted: keeping what is finished")
    report.save(path)


def publish(report: Report, out: Path) -> None:
    """Writes the tables and pictures to a folder, and prints the tables."""
    text = markdown(report)
    out.mkdir(parents=True, exist_ok=True)
    (out / "recurrent.md").write_text(text, encoding="utf-8")
    for dtype in dict.fromkeys(result.case.dtype for result in report.select()):
        name = "recurrent.png" if dtype == "float32" else f"recurrent-{dtype}.png"
        try:
            plot(report, dtype, out / name)
        except (ImportError, ValueError) as error:
            print(f"no picture for {dtype}: {error}", file=sys.stderr)
    print(text)


def main(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Returns:
      The exit status: 0, 1 if something of ours could not be measured, 130 after Ctrl-C.
    """
    if len(arguments) > 1:
        raise app.UsageError(f"expected options alone, got {' '.join(arguments[1:])!r}")
    options = flags.FLAGS
    out = Path(options.out)
    path = out / "recurrent.json"
    if options.markdown or options["from"].value:
        paths = [Path(name) for name in options["from"].value or [path]]
        if len(paths) == 1:
            publish(_loaded(paths[0]), paths[0].parent)
        else:
            print(comparison([_loaded(path) for path in paths]))
        return 0

    import jax

    # Compilation is measured, so none may come from a file.
    jax.config.update("jax_enable_compilation_cache", False)
    tasks = _planned(options, jax.default_backend())
    command = shlex.join(["python", "-m", "benchmarks.recurrent", *sys.argv[1:]])
    report = Report(machine=machine.describe(), command=command)
    with Progress(sum(task.total_rounds for task in tasks)) as progress:
        if machine.busy() > 0.3:
            progress.say(
                f"Other programs keep this machine busy ({machine.busy():.1f} of them per core "
                "during the last minute): ratios will scatter, and times will be too long."
            )
        collect(report, tasks, path, progress)
    publish(report, out)
    print(f"written to {out}", file=sys.stderr)
    if not report.complete:
        return 130
    ours = LIBRARIES["ours"]
    return int(any(name.startswith(("ours", ours)) for r in report.results for name in r.missing))


def define_flags() -> None:
    """Defines the options; they belong to the whole process, so only a program should do it."""
    flags.DEFINE_list(
        "sizes", None, "Sizes BxTxDxH, for example 32x256x128x128,1x1024x64x64; all by default."
    )
    flags.DEFINE_list(
        "cells",
        list(GATES),
        "Cells: gru, lstm, or any other layer by its name without scan_, which is compared with "
        "its own plain nn.scan.",
    )
    flags.DEFINE_list(
        "dtypes", None, f"{', '.join(DTYPES)}; all on a GPU, else float32 by default."
    )
    flags.DEFINE_list("peers", list(LIBRARIES), f"Libraries: {', '.join(LIBRARIES)}.")
    flags.DEFINE_list(
        "quantities",
        [*QUANTITIES, "checkpoint"],
        f"What is measured: {', '.join(QUANTITIES)}, and checkpoint: what checkpoint_every="
        f"{CHECKPOINT_EVERY} saves and costs at {CHECKPOINT_SIZE}.",
    )
    flags.DEFINE_integer(
        "rounds", 15, "Rounds; compile and eager have a third of them.", lower_bound=1
    )
    flags.DEFINE_boolean("quick", False, "Tiny sizes, and at most three rounds.")
    flags.DEFINE_string("out", "runs/benchmarks", "Folder for JSON, Markdown and PNG.")
    flags.DEFINE_boolean(
        "markdown", False, "Measure nothing: print the tables of a JSON, and draw its picture."
    )
    flags.DEFINE_list(
        "from",
        None,
        "The JSON for --markdown, which it implies; that in --out by default. Of several, from "
        "other versions or processors, the summaries are printed side by side.",
    )


def _planned(options: flags.FlagValues, platform: str) -> list[Task]:
    gpu = platform == "gpu"
    sizes = (*SIZES, *GPU_SIZES) if gpu else SIZES
    rounds = options.rounds
    if options.quick:
        sizes, rounds = QUICK_SIZES, min(3, rounds)
    try:
        if options.sizes is not None:
            sizes = tuple(map(Size.parse, options.sizes))
        return plan(
            sizes,
            _among("cells", options.cells, _cells()),
            _among("dtypes", options.dtypes or (DTYPES if gpu else DTYPES[:1]), DTYPES),
            _among("peers", options.peers, LIBRARIES),
            _among("quantities", options.quantities, (*QUANTITIES, "checkpoint")),
            rounds,
            platform,
            QUICK_CHECKPOINT_SIZE if options.quick else CHECKPOINT_SIZE,
        )
    except ValueError as error:
        raise app.UsageError(str(error)) from error


def _cells() -> list[str]:
    import registry

    return [*GATES, *(name.removeprefix("scan_") for name in registry.names("scan_*"))]


def _among(flag: str, given: Sequence[str], known: Iterable[str]) -> Sequence[str]:
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        raise ValueError(f"--{flag}: expected some of {', '.join(known)}; got {','.join(given)!r}")
    return given


def _loaded(path: Path) -> Report:
    try:
        return Report.load(path)
    except (FileNotFoundError, ValueError) as error:
        raise app.UsageError(str(error)) from error


if __name__ == "__main__":
    define_flags()
    app.run(main)
