"""A function cut in two: what is worth writing for later, and what is cheaper to do again."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from zoo.recurrent import jaxprs

Tree = Any

# One instruction per element costs less than to write its result for every step and to read it
# back: without the cut, an LSTM's backward loop streamed twelve arrays instead of seven.
_CHEAP = frozenset(
    ("add", "add_any", "broadcast_in_dim", "convert_element_type", "integer_pow", "mul", "neg")
) | {"reshape", "select_n", "squeeze", "stop_gradient", "sub"}


def split_at_cheap(
    function: Callable[..., Tree], *example: Tree
) -> tuple[Callable[..., list[jax.Array]], Callable[[Sequence[jax.Array]], Tree]]:
    """Cuts ``function`` where its cheap last operations begin.

    Args:
      function: of trees of arrays.
      example: arguments with the shapes and dtypes that it will be called with.

    Returns:
      ``early``, of the function's arguments, which returns the list of what to keep: results of
      expensive operations, and arguments; and ``late``, which makes the function's result of it.
    """
    try:
        jaxpr, constants, shapes = jaxprs.trace(function, *example)
    except jaxprs.UnknownProgramError:
        treedef = jax.tree.structure(jax.eval_shape(function, *example))
        return lambda *args: jax.tree.leaves(function(*args)), functools.partial(
            jax.tree.unflatten, treedef
        )
    treedef = jax.tree.structure(shapes)
    expensive = {
        out for eqn in jaxpr.eqns if eqn.primitive.name not in _CHEAP for out in eqn.outvars
    }
    kept, again = jaxprs.behind(jaxpr, jaxpr.outvars, expensive)

    def early(*args: Tree) -> list[jax.Array]:
        known = constants | dict(zip(jaxpr.invars, jax.tree.leaves(args), strict=True))
        return jaxprs.evaluate(jaxpr.eqns, known, kept)

    def late(values: Sequence[jax.Array]) -> Tree:
        known = constants | dict(zip(kept, values, strict=True))
        return jax.tree.unflatten(treedef, jaxprs.evaluate(again, known, jaxpr.outvars))

    return early, late


def deferred(
    function: Callable[[Tree, Tree], tuple[Tree, Tree]], lasting: Tree, passing: Tree
) -> tuple[Callable[[Tree], list[jax.Array]], Callable[[Tree, list[jax.Array], Tree], Tree]]:
    """Puts off what a loop does not need of ``function``'s result.

    Args:
      function: of ``lasting``, which is there after the loop as well, and ``passing``, which is
        not; returns what the loop needs and keeps, and the other result.
      lasting: an example.
      passing: an example.

    Returns:
      What else the loop has to keep, the arrays of ``passing`` that it chooses; and a function of
      ``lasting``, these arrays, and what was kept anyway, which makes the other result.
    """
    try:
        jaxpr, constants, (anyway, other) = jaxprs.trace(function, lasting, passing)
    except jaxprs.UnknownProgramError:
        treedef = jax.tree.structure(passing)
        return jax.tree.leaves, lambda lasting, chosen, kept: function(
            lasting, jax.tree.unflatten(treedef, chosen)
        )[1]
    count = len(jax.tree.leaves(lasting))
    lasts, passes = jaxpr.invars[:count], jaxpr.invars[count:]
    count = len(jax.tree.leaves(anyway))
    stored, outs = jaxpr.outvars[:count], jaxpr.outvars[count:]
    found, again = jaxprs.behind(jaxpr, outs, jaxprs.variables(stored))
    needed = [var in found for var in passes]

    def choose(passing: Tree) -> list[jax.Array]:
        return list(itertools.compress(jax.tree.leaves(passing), needed))

    def later(lasting: Tree, chosen: list[jax.Array], kept: Tree) -> Tree:
        values = *jax.tree.leaves(lasting), *chosen, *jax.tree.leaves(kept)
        names = *lasts, *itertools.compress(passes, needed), *stored
        known = constants | dict(zip(names, values, strict=True))
        return jax.tree.unflatten(jax.tree.structure(other), jaxprs.evaluate(again, known, outs))

    return choose, later
