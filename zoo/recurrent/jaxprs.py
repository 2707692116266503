"""Traced programs (jaxprs) taken apart: what an output is made of, and running that alone."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from zoo.recurrent import unstable

Tree = Any


class UnknownProgramError(Exception):
    """The installed JAX describes programs in another way than is known here."""


def trace(function: Callable[..., Tree], *example: Tree) -> tuple[Any, dict[Any, Any], Tree]:
    """Traces a function of trees of arrays.

    Args:
      function: what is traced.
      *example: arguments with the shapes and dtypes that it will be called with.

    Returns:
      The jaxpr; its constants by variable; and the result as a tree of
      ``jax.ShapeDtypeStruct``.

    Raises:
      UnknownProgramError: the installed JAX describes programs in another way.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*example)
    if unstable.find("jax.extend.core:Literal") is None:
        raise UnknownProgramError
    try:
        jaxpr = closed.jaxpr
        constants = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        for eqn in jaxpr.eqns:
            (eqn.invars, eqn.outvars, eqn.params, eqn.primitive.get_bind_params)  # noqa: B018
    except AttributeError as error:
        raise UnknownProgramError from error
    return jaxpr, constants, shapes


def is_literal(atom: Any) -> bool:
    """Whether an argument of an operation is a constant that stands in the program itself."""
    return isinstance(atom, unstable.find("jax.extend.core:Literal"))


def variables(atoms: Iterable[Any]) -> list[Any]:
    """The arguments that are no literals."""
    return [atom for atom in atoms if not is_literal(atom)]


def behind(
    jaxpr: Any, outs: Iterable[Any], limit: Iterable[Any] = ()
) -> tuple[list[Any], list[Any]]:
    """Finds what outputs are made of.

    Args:
      jaxpr: the program.
      outs: some of its variables.
      limit: variables that are known, beside the program's arguments.

    Returns:
      The known variables that ``outs`` are made of, and the operations between, in order.
    """
    known = {*jaxpr.invars, *limit}
    wanted, between = set(variables(outs)), []
    for eqn in reversed(jaxpr.eqns):
        made = wanted.intersection(eqn.outvars)
        if made - known:
            between.append(eqn)
            wanted.update(variables(eqn.invars))
    named = (*jaxpr.invars, *(out for eqn in jaxpr.eqns for out in eqn.outvars))
    return [var for var in named if var in wanted & known], between[::-1]


def apply(eqn: Any, values: Sequence[Any]) -> list[Any]:
    """Applies one operation to values."""
    out = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


def evaluate(eqns: Sequence[Any], known: dict[Any, Any], wanted: Sequence[Any]) -> list[Any]:
    """Runs operations in order.

    Args:
      eqns: the operations.
      known: values by variable; those that the operations make are added.
      wanted: the variables, or literals, to return.
    """

    def read(atom: Any) -> Any:
        return atom.val if is_literal(atom) else known[atom]

    for eqn in eqns:
        known.update(zip(eqn.outvars, apply(eqn, [read(x) for x in eqn.invars]), strict=True))
    return [read(atom) for atom in wanted]
