"""Runs over time whose derivatives are written by hand, forwards and backwards."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from zoo.recurrent.engine import forward_mode

Tree = Any


def differentiable(plain: Callable, forward: Callable, push: Callable, pull: Callable) -> Callable:
    """Gives a run its derivatives.

    Every function takes first what it has to know before it sees an array: a hashable plan.

    Args:
      plain: ``(plan, *arguments) -> results``.
      forward: ``(plan, *arguments) -> (results, residuals)``, where anything is differentiated.
      push: ``(plan, residuals, tangents) -> tangents`` of the results. Tangents of arguments that
        are zero are None.
      pull: ``(plan, residuals, cotangents) -> cotangents`` of all arguments, None where there is
        none. Cotangents of results that are zero are None. Where the installed JAX lacks what
        forward mode needs, this is the only derivative.

    Returns:
      A function like ``plain``.
    """
    both_ways = jax.custom_jvp(plain, nondiff_argnums=(0,))

    @functools.partial(both_ways.defjvp, symbolic_zeros=True)
    def _(plan: Any, primals: Tree, tangents: Tree) -> tuple[Tree, Tree]:
        out, residuals = forward(plan, *primals)
        derivative = _Derivative(plan, push, pull)
        return out, forward_mode.linear(derivative, residuals, without_zeros(tangents), out)

    def kept(plan: Any, *arguments: Tree) -> tuple[Tree, Tree]:
        told = jax.tree.map(lambda a: a.value, arguments, is_leaf=lambda a: hasattr(a, "perturbed"))
        return forward(plan, *told)

    def back(plan: Any, residuals: Tree, cotangents: Tree) -> Tree:
        return pull(plan, residuals, without_zeros(cotangents))

    reverse_only = jax.custom_vjp(plain, nondiff_argnums=(0,))
    reverse_only.defvjp(kept, back, symbolic_zeros=True)

    def run(plan: Any, *arguments: Tree) -> Tree:
        return (both_ways if forward_mode.available() else reverse_only)(plan, *arguments)

    return run


@dataclasses.dataclass(frozen=True)
class _Derivative:
    """The derivative of a run, as a map of tangents; see ``forward_mode.Map``."""

    plan: Any
    push_rule: Callable
    pull_rule: Callable

    def push(self, residuals: Tree, tangents: Tree) -> Tree:
        return self.push_rule(self.plan, residuals, tangents)

    def pull(self, residuals: Tree, cotangents: Tree) -> Tree:
        return self.pull_rule(self.plan, residuals, cotangents)


def pushed(function: Callable, arguments: Tree, tangents: Tree) -> Tree:
    """The tangents of a function's results, for tangents of which some are None."""
    leaves, tree = jax.tree.flatten(arguments)
    given = tree.flatten_up_to(tangents)
    where = [i for i, t in enumerate(given) if t is not None]

    def run(chosen: list[jax.Array]) -> Tree:
        all_leaves = dict(enumerate(leaves)) | dict(zip(where, chosen, strict=True))
        return function(*jax.tree.unflatten(tree, all_leaves.values()))

    at, along = [leaves[i] for i in where], [given[i] for i in where]
    return jax.jvp(run, (at,), (along,))[1]


def without_zeros(tree: Tree) -> Tree:
    """None in the place of derivatives that are known to be zero."""
    return jax.tree.map(lambda d: None if isinstance(d, SymbolicZero) else d, tree)


def dense(derivatives: Tree, like: Tree) -> Tree:
    """Zeros in the place of derivatives that are None."""
    leaves, tree = jax.tree.flatten(like)
    given = tree.flatten_up_to(derivatives)
    return tree.unflatten(
        [jnp.zeros_like(x) if d is None else d for d, x in zip(given, leaves, strict=True)]
    )


def nothing(tree: Tree) -> Tree:
    """None for every array: the cotangents of what has none."""
    return jax.tree.map(lambda _: None, tree)
