"""What the commands of the benchmarks have in common: measure, keep, publish."""

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from absl import app, flags

from benchmarks import machine
from benchmarks.cases import Size
from benchmarks.measure import Task, measure
from benchmarks.peers import LIBRARIES
from benchmarks.plot import plot
from benchmarks.progress import Progress
from benchmarks.report import comparison, markdown
from benchmarks.results import Report, Result


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


def publish(
    report: Report,
    out: Path,
    name: str = "recurrent",
    tables: Callable[[Report], str] = markdown,
) -> None:
    """Writes the tables and pictures to a folder, and prints the tables.

    Args:
      report: what was measured.
      out: the folder.
      name: of the files, without a suffix.
      tables: writes the Markdown.
    """
    text = tables(report)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    for dtype in dict.fromkeys(result.case.dtype for result in report.select()):
        picture = f"{name}.png" if dtype == "float32" else f"{name}-{dtype}.png"
        try:
            plot(report, dtype, out / picture)
        except (ImportError, ValueError) as error:
            print(f"no picture for {dtype}: {error}", file=sys.stderr)
    print(text)


def run(
    name: str,
    options: flags.FlagValues,
    planned: Callable[[flags.FlagValues, str], list[Task]],
    tables: Callable[[Report], str] = markdown,
) -> int:
    """Does what a command line asks for.

    Args:
      name: of the program in ``benchmarks``, and of the files that it writes.
      options: with those of ``define_flags``.
      planned: lists the tasks, of the options and the platform.
      tables: writes the Markdown of a report.

    Returns:
      The exit status: 0, 1 if something of ours could not be measured, 130 after Ctrl-C.
    """
    out = Path(options.out)
    path = out / f"{name}.json"
    if options.markdown or options["from"].value:
        paths = [Path(given) for given in options["from"].value or [path]]
        if len(paths) == 1:
            publish(_loaded(paths[0]), paths[0].parent, name, tables)
        else:
            print(comparison([_loaded(path) for path in paths]))
        return 0

    import jax

    # Compilation is measured, so none may come from a file.
    jax.config.update("jax_enable_compilation_cache", False)
    tasks = planned(options, jax.default_backend())
    command = shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])
    report = Report(machine=machine.describe(), command=command)
    with Progress(sum(task.total_rounds for task in tasks)) as progress:
        if machine.busy() > 0.3:
            progress.say(
                f"Other programs keep this machine busy ({machine.busy():.1f} of them per core "
                "during the last minute): ratios will scatter, and times will be too long."
            )
        collect(report, tasks, path, progress)
    publish(report, out, name, tables)
    print(f"written to {out}", file=sys.stderr)
    if not report.complete:
        return 130
    ours = LIBRARIES["ours"]
    return int(any(name.startswith(("ours", ours)) for r in report.results for name in r.missing))


def define_flags() -> None:
    """Defines the options that all these programs have; only a program should do it."""
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


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Options that mean nothing end in what they should be, not in a traceback."""
    try:
        yield
    except ValueError as error:
        raise app.UsageError(str(error)) from error


def asked(
    options: flags.FlagValues, sizes: Sequence[Size], quick: Sequence[Size]
) -> tuple[Sequence[Size], int]:
    """The sizes and the rounds that options ask for, where others do by default."""
    rounds = options.rounds
    if options.quick:
        sizes, rounds = quick, min(3, rounds)
    if options.sizes is not None:
        sizes = tuple(map(Size.parse, options.sizes))
    return sizes, rounds


def among(flag: str, given: Sequence[str], known: Iterable[str]) -> Sequence[str]:
    """Returns what an option lists, if all of it is known.

    Raises:
      ValueError: it is not, or nothing is listed.
    """
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        raise ValueError(f"--{flag}: expected some of {', '.join(known)}; got {','.join(given)!r}")
    return given


def no_arguments(arguments: Sequence[str]) -> None:
    """Refuses arguments that are no options.

    Raises:
      absl.app.UsageError: there are some.
    """
    if len(arguments) > 1:
        raise app.UsageError(f"expected options alone, got {' '.join(arguments[1:])!r}")


def _loaded(path: Path) -> Report:
    try:
        return Report.load(path)
    except (FileNotFoundError, ValueError) as error:
        raise app.UsageError(str(error)) from error
