"""A linear recurrence as ``jax.lax.associative_scan`` runs it, differentiated by JAX alone.

What people write who need no library. Complex numbers are run as such, and as pairs of real ones:
which is faster depends on the platform, and the better one counts.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.cases import Case, Data
from benchmarks.peers import Competitor, compiled
from benchmarks.peers.equations import Params, equations

Tree = Any


def competitors(case: Case, data: Data) -> list[Competitor]:
    """One competitor for a real recurrence, two for a complex one."""
    own = equations(case, data)
    ways = {"": _scan}
    if own.dtype == "complex64":
        ways = {" of complex numbers": _scan, " of pairs": _scan_pairs}

    def competitor(name: str, scan: Callable) -> Competitor:
        def apply(params: Params, xs: jax.Array) -> jax.Array:
            return own.read(params, scan(*own.elements(params, xs)), xs)

        def step(params: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            a, b = own.elements(params, x)
            h = a * h + b
            return h, own.read(params, h, x)

        params = compiled.to_device(own.params, case)
        return compiled.competitor(
            f"associative scan{name}",
            "tree",
            case,
            data,
            params=params,
            apply=apply,
            eager=lambda xs: apply(params, xs),
            step=step,
            carry=jnp.zeros((case.size.batch, own.states), own.dtype),
        )

    return [competitor(name, scan) for name, scan in ways.items()]


def _scan(a: jax.Array, b: jax.Array) -> jax.Array:
    def compose(earlier: Tree, later: Tree) -> Tree:
        return later[0] * earlier[0], later[0] * earlier[1] + later[1]

    return jax.lax.associative_scan(compose, (a, b))[1]


def _scan_pairs(a: jax.Array, b: jax.Array) -> jax.Array:
    def times(x: Tree, y: Tree) -> Tree:
        return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]

    def compose(earlier: Tree, later: Tree) -> Tree:
        (a_1, b_1), (a_2, b_2) = earlier, later
        return times(a_2, a_1), tuple(map(jnp.add, times(a_2, b_1), b_2))

    pairs = (a.real, a.imag), (b.real, b.imag)
    return jax.lax.complex(*jax.lax.associative_scan(compose, pairs)[1])
