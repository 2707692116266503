"""The competitors: one file per library, all giving the same few functions."""

import dataclasses
import importlib
from collections.abc import Callable

from benchmarks.cases import Case, Data
from benchmarks.timing import Timed

LIBRARIES = {
    "ours": "this project",
    "module": "this project in NNX",
    "linen": "nn.RNN",
    "nnx": "nnx.RNN",
    "haiku": "haiku",
    "keras": "Keras on JAX",
    "torch": "torch.nn",
    "cudnn": "jax.experimental.rnn",
}
"""What people call each library, by the name of its file here."""

LINEAR_LIBRARIES = {
    "ours": LIBRARIES["ours"],
    "tree": "associative scan",
    "steps": "nn.scan",
    "memorax": "memorax",
    "gated": "scan_gru",
    "copy": "copy",
}
"""The same for linear recurrences, see ``benchmarks.linear``."""

NAMES = LIBRARIES | LINEAR_LIBRARIES


@dataclasses.dataclass(frozen=True)
class Competitor:
    """One way of solving a case; what is None is not to be had from it.

    Attributes:
      name: unique among the competitors of a case.
      library: one of ``NAMES``.
      checksum: the sum of outputs times cotangents; None where the library's cell has other
        equations (of the same cost), so that there is nothing to compare. Its name says so, or
        it is no layer.
      forward: outputs of all steps, compiled ahead of time where there is a compiler.
      gradient: of that sum, with respect to all parameters and to the inputs.
      compile: from a function to the executable of its gradient.
      eager: the forward pass as it is without a compiler around it.
      step: one step of streaming, from call to result.
      memory: bytes of temporaries that the gradient needs.
      close: lets go of what the competitor holds.
    """

    name: str
    library: str
    checksum: Callable[[], float] | None = None
    forward: Timed | None = None
    gradient: Timed | None = None
    compile: Timed | None = None
    eager: Timed | None = None
    step: Timed | None = None
    memory: Callable[[], int] | None = None
    close: Callable[[], None] = lambda: None


def competitors(library: str, case: Case, data: Data) -> list[Competitor]:
    """Makes the competitors that a library has for a case.

    Args:
      library: one of ``NAMES``.
      case: the problem.
      data: its numbers.

    Returns:
      One or more competitors; none from another library for a cell that is ours alone.

    Raises:
      ImportError: the library is not installed.
    """
    if case.ours_alone and library not in LINEAR_LIBRARIES:
        return []
    return importlib.import_module(f"benchmarks.peers.{library}").competitors(case, data)
