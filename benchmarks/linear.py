"""Compares linear recurrences with other ways to run them, on the same work, in one run.

    python -m benchmarks.linear                     minGRU and LRU, 1,024 to 65,536 steps
    python -m benchmarks.linear --quick             a look whether all is well
    python -m benchmarks.linear --markdown          the tables of the last run again
    python -m benchmarks.linear --from old.json,new.json    two runs side by side

Ours (every implementation); ``jax.lax.associative_scan`` with JAX's own gradient; a Linen cell of
the same equations that ``nn.RNN`` steps through time; and memorax, where it is installed, take
turns. All prove by the sum of outputs times cotangents that they compute the same; memorax' minGRU
does not, and its name says so. ``scan_gru`` takes part in steps of streaming alone. "copy" copies
the arrays of the case once, so that a table can say how far everybody is from the bandwidth of the
memory. JSON, Markdown and a picture are written to --out. Ctrl-C keeps what is finished.
"""

from collections.abc import Sequence

from absl import app, flags

from benchmarks import report, running
from benchmarks.cases import DTYPES, Size
from benchmarks.measure import QUANTITIES, Task
from benchmarks.peers import LINEAR_LIBRARIES
from benchmarks.peers.copy import copied_bytes
from benchmarks.recurrent import plan
from benchmarks.results import BASE, Report
from benchmarks.running import among, asked, no_arguments, run, usage
from benchmarks.timing import geometric_mean, median_ratio

CELLS = ("min_gru", "lru", "s5")
SIZES = (Size(32, 1024, 128, 128), Size(8, 4096, 256, 256), Size(1, 65536, 128, 128))
QUICK_SIZES = (Size(4, 64, 16, 16), Size(1, 512, 16, 16))

# What a user without a compiler waits for says nothing about how a recurrence is run.
_QUANTITIES = tuple(name for name in QUANTITIES if name != "eager")


def tables(found: Report) -> str:
    """Writes everything that a report holds, and how far ours is from copying the arrays."""
    parts = [report.markdown(found)]
    for quantity in ("gradient", "forward"):
        rows, ratios = [], []
        for result in found.select():
            times = {series.name: series for series in result.series}
            if result.quantity != quantity or not {"copy", BASE} <= times.keys():
                continue
            ratio = median_ratio(times[BASE].values, times["copy"].values)
            ratios.append(ratio)
            rate = copied_bytes(result.case, quantity) / times["copy"].median / 1e9
            cell = result.case.cell.upper()
            rows.append(f"| {cell} | {result.case.shape} | {rate:.1f} GB/s | {ratio:.1f} |")
        if rows:
            head = (
                f"| {quantity} | | bandwidth of the copy | ours auto / copy |\n|---|---|---:|---:|"
            )
            mean = f"| geometric mean | | | {geometric_mean(ratios):.1f} |"
            parts.append("\n".join([head, *rows, mean]))
    if len(parts) > 1:
        parts.insert(
            1,
            "### Distance to the memory\n\nHow many times as long as copying inputs and outputs, "
            "and for a gradient their cotangents too, once. Bytes are counted as read and written.",
        )
    return "\n\n".join(part.strip() for part in parts) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Returns:
      The exit status: 0, 1 if something of ours could not be measured, 130 after Ctrl-C.
    """
    no_arguments(arguments)
    return run("linear", flags.FLAGS, _planned, tables)


def define_flags() -> None:
    """Defines the options; they belong to the whole process, so only a program should do it."""
    flags.DEFINE_list(
        "sizes", None, "Sizes BxTxDxH, for example 32x1024x128x128,1x65536x128x128; all by default."
    )
    flags.DEFINE_list("cells", list(CELLS[:2]), f"Cells: {', '.join(CELLS)}.")
    names = ", ".join(LINEAR_LIBRARIES)
    flags.DEFINE_list("peers", list(LINEAR_LIBRARIES), f"Who takes part: {names}.")
    flags.DEFINE_list(
        "quantities", list(_QUANTITIES), f"What is measured: {', '.join(_QUANTITIES)}."
    )
    flags.DEFINE_integer("rounds", 15, "Rounds; compilation has a third of them.", lower_bound=1)
    running.define_flags()


def _planned(options: flags.FlagValues, platform: str) -> list[Task]:
    with usage():
        sizes, rounds = asked(options, SIZES, QUICK_SIZES)
        return plan(
            sizes,
            among("cells", options.cells, CELLS),
            DTYPES[:1],
            among("peers", options.peers, LINEAR_LIBRARIES),
            among("quantities", options.quantities, _QUANTITIES),
            rounds,
            platform,
        )


if __name__ == "__main__":
    define_flags()
    app.run(main)
