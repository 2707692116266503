"""Shapes with D and H in the place of numbers, and what they add up to."""

import dataclasses
from collections import Counter
from fractions import Fraction
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from docs.extensions.gallery import layers

# Sizes that nothing else has, so that a shape tells where it comes from.
_D, _H = 97, 104
_SPACE = (7, 5)
_HEADS = 8


@dataclasses.dataclass(frozen=True)
class Term:
    """A number times a power of D times a power of H."""

    factor: Fraction
    d: int
    h: int

    def __mul__(self, other: "Term") -> "Term":
        """The product of both."""
        return Term(self.factor * other.factor, self.d + other.d, self.h + other.h)


_ONE = Term(Fraction(1), 0, 0)
_TERMS = {
    _D: ("D", Term(Fraction(1), 1, 0)),
    _H: ("H", Term(Fraction(1), 0, 1)),
    2 * _H: ("2H", Term(Fraction(2), 0, 1)),
    4 * _H: ("4H", Term(Fraction(4), 0, 1)),
    _H // _HEADS: ("H/8", Term(Fraction(1, _HEADS), 0, 1)),
}


def parameters(name: str) -> list[tuple[str, tuple[int, ...]]]:
    """The parameters of a layer with unmistakable sizes: paths and shapes."""
    return _parameters(name, _D, _H)


def count(name: str, inputs: int, features: int) -> int:
    """How many numbers the parameters hold."""
    return sum(prod(shape) for _, shape in _parameters(name, inputs, features))


def carry(name: str) -> list[tuple[str, tuple[int, ...]]]:
    """The arrays of the carry of one sequence: paths and shapes."""
    layer = layers.build(name, _H)
    return [
        (jax.tree_util.keystr(path), leaf.shape)
        for path, leaf in jax.tree_util.tree_flatten_with_path(layer.carry_spec(_one(layer, _D)))[0]
    ]


def narrower(name: str) -> bool:
    """Whether there are fewer parameters where D is H than the sum for any D says."""
    as_wide = sum(prod(shape) for _, shape in _parameters(name, _H, _H))
    return as_wide < sum(
        prod(_H if size == _D else size for size in shape) for _, shape in parameters(name)
    )


def text(shape: tuple[int, ...]) -> str:
    """A shape as text: (D, H)."""
    known = {size: label for size, (label, _) in _TERMS.items()}
    known |= {size: label for size, label in zip(_SPACE, ("height", "width"), strict=True)}
    parts = [known.get(size, str(size)) for size in shape]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def total(shapes: list[tuple[int, ...]]) -> str:
    """The sum of the sizes of shapes, in LaTeX: 3H^2 + 3DH + 4H."""
    sums: Counter[tuple[int, int]] = Counter()
    for shape in shapes:
        term = _ONE
        for size in shape:
            if size not in _SPACE or shape[-1] not in _TERMS or len(shape) != 3:
                term *= _TERMS[size][1] if size in _TERMS else Term(Fraction(size), 0, 0)
        sums[term.d, term.h] += term.factor  # pyright: ignore[reportArgumentType]
    order = sorted(sums, key=lambda powers: (-sum(powers), -powers[1]))
    return " + ".join(_term(sums[powers], *powers) for powers in order)


def _term(factor: Any, d: int, h: int) -> str:
    symbols = "".join(
        symbol if power == 1 else f"{symbol}^{power}"
        for symbol, power in (("D", d), ("H", h))
        if power
    )
    if not symbols:
        return str(factor)
    number = Fraction(factor)
    if number.denominator != 1:
        top = symbols if number.numerator == 1 else f"{number.numerator}{symbols}"
        return rf"{top} / {number.denominator}"
    return symbols if number == 1 else f"{number.numerator}{symbols}"


def _one(layer: Any, inputs: int) -> tuple[int, ...]:
    """The shape of one step of one sequence."""
    return (*_SPACE[: layer.feature_axes - 1], inputs)


def _parameters(name: str, inputs: int, features: int) -> list[tuple[str, tuple[int, ...]]]:
    layer = layers.build(name, features)
    xs = jax.ShapeDtypeStruct((3, *_one(layer, inputs)), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(lambda key, xs: layer.init(key, None, xs), key, xs)
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape)
        for path, leaf in jax.tree_util.tree_flatten_with_path(variables["params"])[0]
    ]
