"""What all libraries on JAX share: how a function becomes a competitor."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case, Data
from benchmarks.peers import Competitor
from benchmarks.timing import Timed, repeat

Tree = Any
Apply = Callable[[Tree, jax.Array], jax.Array]
Step = Callable[[Tree, Tree, jax.Array], tuple[Tree, jax.Array]]


def to_device(tree: Tree, case: Case) -> Tree:
    """Moves arrays to the device, in the case's dtype."""
    return jax.tree.map(lambda x: jnp.asarray(x, case.array_dtype), tree)


def compiling(function: Callable, *args: Tree) -> Timed:
    """Compiles a function of ``args``, every time as if it had never been seen."""

    def timed(calls: int) -> float:
        seconds = 0.0
        for _ in range(calls):
            jax.clear_caches()
            # jit knows functions by identity, and this one it has never seen.
            fresh = functools.partial(function)
            start = time.perf_counter()
            jax.jit(fresh).lower(*args).compile()
            seconds += time.perf_counter() - start
        return seconds / calls

    return timed


def competitor(
    name: str,
    library: str,
    case: Case,
    data: Data,
    *,
    params: Tree,
    apply: Apply,
    eager: Callable[[jax.Array], jax.Array],
    step: Step,
    carry: Tree,
    batch_major: bool = False,
    same: bool = True,
) -> Competitor:
    """Makes a competitor of a library's functions; nothing is compiled before it is needed.

    Args:
      name: of the competitor.
      library: that it belongs to.
      case: the problem.
      data: its numbers.
      params: the parameters, in whatever form the library takes them.
      apply: ``(params, xs) -> ys``.
      eager: ``xs -> ys`` as a user without a compiler calls it.
      step: ``(params, carry, x) -> (carry, y)``.
      carry: the first carry.
      batch_major: whether the library takes (B, T, D) and gives (B, T, H), not time first.
      same: whether it computes the same function as we do.

    Returns:
      The competitor.
    """
    xs, cotangent = to_device((data.xs, data.cotangent), case)
    x = xs[0]
    if batch_major:
        xs, cotangent = (jnp.swapaxes(a, 0, 1).copy() for a in (xs, cotangent))

    def loss(params: Tree, xs: jax.Array, cotangent: jax.Array) -> jax.Array:
        return jnp.sum(apply(params, xs) * cotangent)

    # Around the whole program, because a backward pass may be written after its forward pass.
    apply, eager, gradient_of_loss, step = (
        _multiplying_as(case, own) for own in (apply, eager, jax.grad(loss, (0, 1)), step)
    )

    @functools.cache
    def forward() -> Any:
        return jax.jit(apply).lower(params, xs).compile()

    @functools.cache
    def gradient() -> Any:
        return jax.jit(gradient_of_loss).lower(params, xs, cotangent).compile()

    compiled_step = jax.jit(step)

    def stepping(calls: int) -> float:
        now = carry
        start = time.perf_counter()
        for _ in range(calls):
            now, y = compiled_step(params, now, x)
            y.block_until_ready()
        return (time.perf_counter() - start) / calls

    def checksum() -> float:
        ys = np.asarray(forward()(params, xs), np.float64)
        return float(np.sum(ys * np.asarray(cotangent, np.float64)))

    return Competitor(
        name=name,
        library=library,
        checksum=checksum if same else None,
        forward=repeat(lambda: forward()(params, xs).block_until_ready()),
        gradient=repeat(lambda: jax.block_until_ready(gradient()(params, xs, cotangent))),
        compile=compiling(gradient_of_loss, params, xs, cotangent),
        eager=repeat(lambda: eager(xs).block_until_ready()),
        step=stepping,
        memory=lambda: gradient().memory_analysis().temp_size_in_bytes,
        close=jax.clear_caches,
    )


def _multiplying_as(case: Case, function: Callable) -> Callable:
    def run(*args: Tree) -> Any:
        with case.arithmetic():
            return function(*args)

    return run
