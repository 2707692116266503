"""A function cut in two: what is worth writing for later, and what is cheaper to do again."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Literal

Tree = Any

# One instruction per element costs less than to write its result for every step and to read it
# back: without the cut, an LSTM's backward loop streamed twelve arrays instead of seven.
_CHEAP = frozenset(
    ("add", "add_any", "broadcast_in_dim", "convert_element_type", "integer_pow", "mul", "neg")
) | {"reshape", "select_n", "squeeze", "stop_gradient", "sub"}


def cut(
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
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*example)
    jaxpr, treedef = closed.jaxpr, jax.tree.structure(shapes)
    made_by = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    constants = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    kept: dict[Any, None] = {}
    again: set[int] = set()

    def need(atom: Any) -> None:
        if isinstance(atom, Literal) or atom in constants:
            return
        eqn = made_by.get(atom)
        if eqn is None or eqn.primitive.name not in _CHEAP:
            kept[atom] = None
        elif id(eqn) not in again:
            again.add(id(eqn))
            for source in eqn.invars:
                need(source)

    for out in jaxpr.outvars:
        need(out)

    def early(*args: Tree) -> list[jax.Array]:
        known = constants | dict(zip(jaxpr.invars, jax.tree.leaves(args), strict=True))
        return _evaluate(jaxpr.eqns, known, list(kept))

    def late(values: Sequence[jax.Array]) -> Tree:
        known = constants | dict(zip(kept, values, strict=True))
        eqns = [eqn for eqn in jaxpr.eqns if id(eqn) in again]
        return jax.tree.unflatten(treedef, _evaluate(eqns, known, jaxpr.outvars))

    return early, late


def _evaluate(eqns: Sequence[Any], known: dict[Any, Any], wanted: Sequence[Any]) -> list[Any]:
    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for eqn in eqns:
        params = eqn.primitive.get_bind_params(eqn.params)
        out = eqn.primitive.bind(*map(read, eqn.invars), **params)
        outs = out if eqn.primitive.multiple_results else [out]
        known.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in wanted]
