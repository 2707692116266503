"""The derivative of a step as numbers, where the step takes every element by itself."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from zoo.recurrent.cells import Carry, Weights
from zoo.recurrent.engine.products import side_by_side
from zoo.recurrent.step import Step


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("sums", "direct", "joins", "inputs"),
    meta_fields=("of_sums", "of_direct", "of_joins", "of_inputs", "addends", "argument"),
)
@dataclasses.dataclass(frozen=True)
class Numbers:
    """The derivative of a step but for its product: one number per element in place of matrices.

    Cotangents of several arrays may act only together: whatever an LSTM makes of that of c, it
    makes of its sum with o ⊙ tanh'(c) times that of h. These sums are joint cotangents, one for
    every array of the carry, and all else is a multiple of one of them.

    Attributes:
      sums: the multiples that are the sums' cotangents, (..., G, width).
      direct: those that reach the arrays of the previous carry, but through the product, each
        (..., width), or None where nothing does.
      joins: for every array, what others' cotangents are multiplied by in its joint one.
      inputs: the multiples that reach the input projections, but through the sums that they are
        added to, for every leaf, or None.
      of_sums: for every sum, the array of the carry whose joint cotangent is multiplied.
      of_direct: the same for ``direct``.
      of_joins: the others, for every array.
      of_inputs: the same as ``of_sums`` for ``inputs``.
      addends: for every sum, the leaf of input projections and weights that is added, or None.
      argument: the array of the carry that the kernel is multiplied by.
    """

    sums: jax.Array
    direct: tuple[jax.Array | None, ...]
    joins: tuple[tuple[jax.Array, ...], ...]
    inputs: tuple[jax.Array | None, ...]
    of_sums: tuple[int, ...]
    of_direct: tuple[int, ...]
    of_joins: tuple[tuple[int, ...], ...]
    of_inputs: tuple[int, ...]
    addends: tuple[int | None, ...]
    argument: int

    def join(self, d: Carry) -> Carry:
        """The joint cotangents of those of a carry."""

        def joint(own, others, factors):
            added = zip(others, factors, strict=True)
            return sum(((by * d[k]).astype(own.dtype) for k, by in added), start=own)

        return tuple(map(joint, d, self.of_joins, self.joins))

    def wide(self, joint: Carry | Mapping[int, jax.Array]) -> jax.Array:
        """The cotangents of the sums, side by side: (..., G, width)."""
        if len(set(self.of_sums)) == 1:
            each = joint[self.of_sums[0]][..., None, :]
        else:
            each = side_by_side([joint[k] for k in self.of_sums])
        return self.sums * each.astype(self.sums.dtype)

    def before(self, joint: Carry) -> tuple[jax.Array | None, ...]:
        """The cotangents of the previous carry, but for what comes through the product."""
        return _multiples(self.of_direct, self.direct, joint)

    def beside(self, joint: Carry | Mapping[int, jax.Array]) -> tuple[jax.Array | None, ...]:
        """The cotangents of the input projections, but for what comes through the sums."""
        return _multiples(self.of_inputs, self.inputs, joint)


def _multiples(arrays, factors, joint):
    return tuple(
        None if by is None else by * joint[k].astype(by.dtype)
        for k, by in zip(arrays, factors, strict=True)
    )


def find_numbers(
    step: Step,
    weights: Weights,
    fixed: Any,
    carry: Carry,
    u: Any,
    known: list[tuple[jax.Array, ...]],
    signals: Any,
) -> Numbers | None:
    """Finds the derivative of one step as numbers; None where it has another form.

    It has where an activation looks at several elements, where there are several products or
    widths, and where two cotangents act in more than one combination. Under conditions it has, too:
    they keep NaN from what it does not concern by selection, and a factor of zero would not.

    Args:
      step: that is taken.
      weights: biases and scales by parameter name.
      fixed: what is the same for every step, see ``Step``.
      carry: before it.
      u: its input projections.
      known: its recurrent sums.
      signals: its conditions.
    """
    shape = carry[0].shape
    if signals or fixed or len(known) != 1:
        return None
    if any(x.shape != shape for x in (*carry, *known[0])):
        return None

    def given(carry, known, u, weights):
        return step(Given(known), carry, u, {}, {}, weights)

    try:
        argument, *addends = _origins(step, weights, carry, u, known)
        ones = tuple(map(jnp.ones_like, carry))
        parts = [_Part(_Joint(k), one, whole=True) for k, one in enumerate(ones)]
        pull = jax.vjp(given, carry, known, u, weights)[1]
        results = _follow(jax.make_jaxpr(pull)(ones), parts)
    except _OtherFormError:
        return None
    # What is no part of any cotangent is what a linear map makes of nothing: zero.
    found = [x if isinstance(x, _Part) else None for x in results]
    joints = {part.of.array: part.of for part in found if part}
    if any(part and part.of is not joints[part.of.array] for part in found):
        return None
    arrays, factors = zip(*((p.of.array, p.factor) if p else (0, None) for p in found), strict=True)
    others = [joints[k].others if k in joints else () for k in range(len(carry))]
    first, last, end = itertools.accumulate(map(len, (carry, known[0], u)))
    # Weights that are more than added would have to be summed up over time.
    if any(by is not None for by in factors[end:]):
        return None
    sums = zip(factors[first:last], known[0], strict=True)
    return Numbers(
        side_by_side([jnp.zeros_like(x) if by is None else by for by, x in sums]),
        factors[:first],
        tuple(tuple(factor for _, factor in pairs) for pairs in others),
        factors[last:end],
        arrays[first:last],
        arrays[:first],
        tuple(tuple(k for k, _ in pairs) for pairs in others),
        arrays[last:end],
        tuple(addends),
        argument,
    )


class Given:
    """Gives back known sums, and remembers what it was to multiply and to add (``asked``)."""

    def __init__(self, known: list[tuple[jax.Array, ...]]):
        self.known, self.asked = iter(known), []

    def __call__(self, a: jax.Array, **addends: jax.Array | None) -> tuple[jax.Array, ...]:
        """The next known sums, whatever ``a`` is."""
        self.asked += [a, *addends.values()]
        return next(self.known)


def _origins(
    step: Step, weights: Weights, carry: Carry, u: Any, known: list[tuple[jax.Array, ...]]
) -> list[int | None]:
    """What the product multiplies, a number in the carry; and adds, in ``u`` and ``weights``."""

    def ask(carry, others):
        given = Given(known)
        step(given, carry, *others)
        return given.asked

    closed, shapes = jax.make_jaxpr(ask, return_shape=True)(carry, (u, {}, {}, weights))
    jaxpr = closed.jaxpr
    origin = {id(var): i for i, var in enumerate(jaxpr.invars)}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("convert_element_type", "copy"):
            origin[id(eqn.outvars[0])] = origin.get(id(eqn.invars[0]), -1)
    found = iter(jaxpr.outvars)
    first, *addends = [None if x is None else origin.get(id(next(found)), -1) for x in shapes]
    count = len(carry)
    if not 0 <= first < count or any(i is not None and i < count for i in addends):
        raise _OtherFormError
    return [first, *(None if i is None else i - count for i in addends)]


# Linear, and of every element by itself where the shape stays.
_SAME = frozenset(("broadcast_in_dim", "convert_element_type", "copy"))
_ELEMENTWISE = _SAME | {"add", "add_any", "div", "mul", "neg", "select_n", "sub"}


class _OtherFormError(Exception):
    """The derivative is not a matter of numbers."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Joint:
    """The cotangent of an array of the carry, joined by multiples of others."""

    array: int
    others: tuple[tuple[int, jax.Array], ...] = ()


class _Part(NamedTuple):
    """A multiple of a joint cotangent; ``whole`` where the factor is one."""

    of: _Joint
    factor: jax.Array
    whole: bool = False


def _follow(closed: Any, inputs: Sequence[Any]) -> list[Any]:
    """What a linear function makes of parts: parts, or arrays that depend on none of them."""
    jaxpr = closed.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *inputs), strict=True))

    def read(atoms: Iterable[Any]) -> list[Any]:
        return [atom.val if isinstance(atom, Literal) else values[atom] for atom in atoms]

    for eqn in jaxpr.eqns:
        args, inner = read(eqn.invars), eqn.params.get("jaxpr")
        outs = _follow(inner, args) if hasattr(inner, "consts") else _apply(eqn, args)
        values.update(zip(eqn.outvars, outs, strict=True))
    return read(jaxpr.outvars)


def _apply(eqn: Any, args: list[Any]) -> list[Any]:
    parts = [x for x in args if isinstance(x, _Part)]
    name = eqn.primitive.name
    if parts and (name not in _ELEMENTWISE or eqn.outvars[0].aval.shape != parts[0].factor.shape):
        raise _OtherFormError
    if len({part.of for part in parts}) > 1:
        return [_joined(name, *parts)]
    values = [x.factor if isinstance(x, _Part) else x for x in args]
    out = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    outs = out if eqn.primitive.multiple_results else [out]
    return [_Part(parts[0].of, outs[0], name in _SAME and parts[0].whole)] if parts else outs


def _joined(name: str, a: _Part, b: _Part) -> _Part:
    a, b = (a, b) if a.whole else (b, a)
    own = a.of
    if not name.startswith("add") or not a.whole or b.of.others or b.of.array == own.array:
        raise _OtherFormError
    others = dict(own.others)
    k = b.of.array
    others[k] = others[k] + b.factor if k in others else b.factor
    return a._replace(of=_Joint(own.array, tuple(others.items())))
