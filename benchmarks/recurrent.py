"""Compares the layers with those of other libraries, on the same work, in one run.

    python -m benchmarks.recurrent                       everything; about 25 minutes on two cores
    python -m benchmarks.recurrent --quick               a look whether all is well, a few minutes
    python -m benchmarks.recurrent --markdown            the tables of the last run again
    python -m benchmarks.recurrent --from old.json,new.json    two runs side by side

Ours (every implementation, and in NNX), nn.RNN, nnx.RNN, haiku, Keras on JAX and PyTorch, whichever
of them is installed (pip install -e '.[bench]'), take turns: A B C, B C A, ... Ratios are taken
within a round and above 1 where ours is faster. JSON, Markdown and a picture are written to --out.
Ctrl-C keeps what is finished. On a GPU, bfloat16 and larger sizes are added.
"""

from collections.abc import Sequence

from absl import app, flags

from benchmarks import running
from benchmarks.cases import DTYPES, GATES, Case, Size
from benchmarks.measure import QUANTITIES, Task
from benchmarks.peers import LIBRARIES
from benchmarks.running import among, asked, no_arguments, run, usage

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


def main(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Returns:
      The exit status: 0, 1 if something of ours could not be measured, 130 after Ctrl-C.
    """
    no_arguments(arguments)
    return run("recurrent", flags.FLAGS, _planned)


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
    running.define_flags()


def _planned(options: flags.FlagValues, platform: str) -> list[Task]:
    gpu = platform == "gpu"
    with usage():
        sizes, rounds = asked(options, (*SIZES, *GPU_SIZES) if gpu else SIZES, QUICK_SIZES)
        return plan(
            sizes,
            among("cells", options.cells, _cells()),
            among("dtypes", options.dtypes or (DTYPES if gpu else DTYPES[:1]), DTYPES),
            among("peers", options.peers, LIBRARIES),
            among("quantities", options.quantities, (*QUANTITIES, "checkpoint")),
            rounds,
            platform,
            QUICK_CHECKPOINT_SIZE if options.quick else CHECKPOINT_SIZE,
        )


def _cells() -> list[str]:
    import registry

    return [*GATES, *(name.removeprefix("scan_") for name in registry.names("scan_*"))]


if __name__ == "__main__":
    define_flags()
    app.run(main)
