"""What copying the arrays of a case takes: no layer can be faster than the memory.

A forward pass reads its inputs and writes its outputs; a gradient has the cotangents of both, too.
As in STREAM (McCalpin 1995) each array is copied once, into memory that is there already. The times
of a layer over these say how far it is from the bandwidth that the machine shows in the same run.
"""

import concurrent.futures
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import machine
from benchmarks.cases import Case, Data
from benchmarks.peers import Competitor
from benchmarks.timing import repeat


def copied_bytes(case: Case, quantity: str) -> int:
    """How many bytes a copy reads and writes, together.

    Args:
      case: the problem.
      quantity: "forward" or "gradient".
    """
    size = case.size
    wide = size.inputs + size.features
    item = 2 if case.array_dtype == "bfloat16" else 4
    once = size.steps * size.batch * wide * item
    return 2 * once * (2 if quantity == "gradient" else 1)


def competitors(case: Case, data: Data) -> list[Competitor]:
    """One competitor, which computes nothing and so has no checksum."""
    if case.platform != "cpu":
        return [_on_device(case, data)]
    pool = concurrent.futures.ThreadPoolExecutor(machine.cores())
    # Cotangents are of the shapes of what they belong to.
    forward = [_flat(case, data.xs), _flat(case, data.cotangent)]
    both = forward + [array.copy() for array in forward]
    into = [np.ones_like(array) for array in both]

    def copying(arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        pairs = [
            pair
            for array, target in zip(arrays, into, strict=False)
            for pair in zip(_parts(target), _parts(array), strict=True)
        ]
        # NumPy lets go of Python's lock while it copies.
        return lambda: list(pool.map(lambda pair: np.copyto(*pair), pairs))

    return [
        Competitor(
            "copy",
            "copy",
            forward=repeat(copying(forward)),
            gradient=repeat(copying(both)),
            close=pool.shutdown,
        )
    ]


def _flat(case: Case, array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array).reshape(-1)
    return array.astype(np.float16) if case.array_dtype == "bfloat16" else array.copy()


def _parts(array: np.ndarray) -> list[np.ndarray]:
    return np.array_split(array, machine.cores())


def _on_device(case: Case, data: Data) -> Competitor:
    import jax
    import jax.numpy as jnp

    from benchmarks.peers import compiled

    forward = compiled.to_device((data.xs, data.cotangent), case)
    both = (*forward, *(x + 1 for x in forward))

    def copying(arrays: tuple) -> Callable[[], object]:
        run = jax.jit(lambda arrays: jax.tree.map(jnp.copy, arrays)).lower(arrays).compile()
        return lambda: jax.block_until_ready(run(arrays))

    return Competitor(
        "copy", "copy", forward=repeat(copying(forward)), gradient=repeat(copying(both))
    )
