"""Everything that the layers have to show on a GPU, by one command and within a given time.

    python -m benchmarks.gpu --out DIR                          half an hour
    python -m benchmarks.gpu --out DIR --minutes=8 --pieces=parity,gated

Five kinds of pieces, in this order: "parity" compares values and gradients of every layer,
implementation and dtype with float64 on the CPU; "kit" runs the conformance kit over every layer in
all implementations; "gated" measures GRU and LSTM beside the libraries that are installed, "heads"
those with heads of 64 features, and "linear" some linear recurrences, in each of their
implementations. Every piece is a process of its own, so that one that fails, crashes or hangs is
lost alone, and is written to DIR/gpu.json and DIR/gpu.md when it ends. Pieces that take no times
run side by side; so does the compilation of what is measured, into a cache that the measurement
reads. It runs on a CPU too, where it proves nothing but that it runs.
"""

import concurrent.futures
import dataclasses
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import machine
from benchmarks.cases import DTYPES, GATES, Size
from benchmarks.gpu_pieces import KINDS, MEASURED, do, pieces
from benchmarks.gpu_report import Outcome, tables
from benchmarks.peers import LIBRARIES
from benchmarks.progress import Progress
from benchmarks.results import write_whole
from benchmarks.running import among, no_arguments, usage

# Of one piece. A layer's kit takes one minute on two cores of a CPU, a case of eight steps ten
# seconds; more is a piece that hangs.
_SECONDS = 300.0


class Run:
    """Runs pieces in processes, and writes what they find.

    Args:
      out: the folder to write to.
      seconds: after which no piece runs any more.
      jobs: how many pieces run side by side where no times are taken.
      options: of the pieces' command line.
    """

    def __init__(self, out: Path, seconds: float, jobs: int, options: Sequence[str]) -> None:
        self._out, self._jobs, self._options = out, jobs, options
        self._end = time.monotonic() + seconds
        self.outcomes: list[Outcome] = []
        (out / "logs").mkdir(parents=True, exist_ok=True)

    def all(self, names: Sequence[str], say: Callable[[str], None]) -> None:
        """Runs all pieces; on Ctrl-C what is finished stays."""
        together = [name for name in names if not name.startswith(MEASURED)]
        alone = [name for name in names if name.startswith(MEASURED)]
        with concurrent.futures.ThreadPoolExecutor(self._jobs) as pool:
            for outcome in pool.map(self.piece, together):
                self._add(outcome, say)
            for name, outcome in zip(
                alone, pool.map(lambda name: self.piece(name, "--prepare"), alone), strict=True
            ):
                say(f"{name}: compiled in {outcome.seconds:.0f} s. {outcome.error or ''}")
        for name in alone:
            self._add(self.piece(name), say)

    def piece(self, name: str, *options: str) -> Outcome:
        """Runs one piece in a process of its own."""
        left = self._end - time.monotonic()
        if left <= 0.0:
            return Outcome(name, 0.0, error="not begun: the time was over")
        answer = self._out / "logs" / (name.replace("/", "-") + "".join(options))
        command = [sys.executable, "-m", "benchmarks.gpu", f"--piece={name}", *options]
        command += [f"--answer={answer}.json", *self._options]
        environment = {
            **os.environ,
            # Every process would take three quarters of the memory.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "JAX_COMPILATION_CACHE_DIR": str(self._out / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        start = time.monotonic()
        error = None
        with open(f"{answer}.log", "w", encoding="utf-8") as log:
            try:
                status = subprocess.run(
                    command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    timeout=min(left, _SECONDS),
                    check=False,
                ).returncode
                error = f"exit status {status}, see {log.name}" if status else None
            except subprocess.TimeoutExpired as expired:
                error = f"stopped after {expired.timeout:.0f} s"
        seconds = time.monotonic() - start
        if error:
            return Outcome(name, seconds, error=error)
        text = Path(f"{answer}.json").read_text(encoding="utf-8")
        return Outcome(name, seconds, found=json.loads(text))

    def _add(self, outcome: Outcome, say: Callable[[str], None]) -> None:
        self.outcomes.append(outcome)
        say(f"{outcome.piece}: {outcome.seconds:.0f} s. {outcome.error or ''}")
        outcomes = [dataclasses.asdict(own) for own in self.outcomes]
        written = {"machine": self._machine, "outcomes": outcomes}
        write_whole(self._out / "gpu.json", json.dumps(written, indent=1))
        write_whole(self._out / "gpu.md", tables(self.outcomes, self._machine))

    @functools.cached_property
    def _machine(self) -> dict[str, Any]:
        # In a process of its own, so that this one does not hold the GPU.
        code = "import json; from benchmarks import machine; print(json.dumps(machine.describe()))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Returns:
      The exit status: 0, 1 if a piece failed or a promise was broken, 130 after Ctrl-C.
    """
    no_arguments(arguments)
    options = flags.FLAGS
    if options.piece:
        found = do(
            options.piece,
            options.peers,
            options.rounds,
            sweep=options.sweep,
            prepare=options.prepare,
        )
        Path(options.answer).write_text(json.dumps(found), encoding="utf-8")
        return 0
    import registry

    out = Path(options.out).resolve()
    layers = options.layers or registry.names("scan_*")
    with usage():
        names = options.names or pieces(
            among("pieces", options.pieces, KINDS),
            layers,
            options.cells,
            [Size.parse(text) for text in options.sizes or ()],
            among("dtypes", options.dtypes, DTYPES),
        )
        among("peers", options.peers, LIBRARIES)
    own = [f"--peers={','.join(options.peers)}", f"--rounds={options.rounds}"]
    own.append(f"--sweep={options.sweep}")
    run = Run(out, 60.0 * options.minutes, options.jobs or max(1, machine.cores() // 2), own)
    with Progress(len(names)) as progress:
        interrupted = False

        def say(text: str) -> None:
            progress.say(text)
            progress.advance()

        try:
            run.all(names, say)
        except KeyboardInterrupt:
            interrupted = True
    if (out / "gpu.md").exists():
        print((out / "gpu.md").read_text())
    if interrupted:
        return 130
    return int(any(outcome.error for outcome in run.outcomes))


def define_flags() -> None:
    """Defines the options; they belong to the whole process, so only a program should do it."""
    flags.DEFINE_string(
        "out", "runs/gpu", "Folder for JSON, Markdown, logs, and compiled programs."
    )
    flags.DEFINE_float("minutes", 30.0, "Minutes after which no piece runs any more.")
    flags.DEFINE_list("pieces", list(KINDS), f"Kinds of pieces: {', '.join(KINDS)}.")
    flags.DEFINE_list("names", None, "Pieces by their names, in place of all of some kinds.")
    flags.DEFINE_list("layers", None, "Registered names for parity and kit; all by default.")
    flags.DEFINE_list("cells", list(GATES), "Cells that are measured.")
    flags.DEFINE_list("sizes", None, "Sizes BxTxDxH that are measured.")
    flags.DEFINE_list("dtypes", list(DTYPES), f"Some of {', '.join(DTYPES)}.")
    flags.DEFINE_list("peers", list(LIBRARIES), f"Libraries: {', '.join(LIBRARIES)}.")
    flags.DEFINE_integer("rounds", 7, "Rounds of every measurement.", lower_bound=1)
    flags.DEFINE_boolean(
        "sweep", True, "Whether gated layers are measured with several blocks and unrolls, too."
    )
    flags.DEFINE_integer("jobs", None, "Processes side by side; half the cores by default.")
    flags.DEFINE_string("piece", None, "Do this piece alone, in this process.")
    flags.DEFINE_boolean("prepare", False, "With --piece: only compile what would be measured.")
    flags.DEFINE_string("answer", None, "With --piece: the JSON to write.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
