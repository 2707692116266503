"""What an engine knows of a layer's equation: its parameters, input projections and one step."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

Carry = tuple[jax.Array, ...]
Weights = Mapping[str, Mapping[str, jax.Array]]
Projected = Mapping[str, jax.Array]


class Product(Protocol):
    """Multiplies by several kernels of one cell at once, asked for by name."""

    def __call__(self, a: jax.Array, **addends: jax.Array | None) -> tuple[jax.Array, ...]:
        """Returns ``a @ kernel[name] + addend`` for every ``name=addend``, in that order."""
        ...


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One linear map of a cell: what it reads, how it is structured, and what else it owns.

    Attributes:
      source: "input" (kernel of shape (D, width)), "state" ((width of h, width)) or "none"
        (no kernel, only what is listed below; with ``diagonal``, a vector that multiplies nothing
        by itself and is never rounded to the dtype of products).
      width: number of columns.
      bias: whether it owns a bias of shape (width,).
      bias_shift: what is added to the bias when it is initialised; one number, or one per column.
      scale: whether it owns a scale of shape (width,), for layer normalisation.
      rows: number of rows where ``source`` does not tell.
      heads: N, for a block-diagonal kernel of shape (N, rows/N, width/N).
      diagonal: whether the kernel is a diagonal matrix, kept as a vector (width,) that is a
        parameter by itself: ``name`` instead of ``name/kernel``.
      window: extents of a convolution, for a kernel of shape (*window, rows, width).
    """

    source: str
    width: int
    bias: bool = False
    bias_shift: float | tuple[float, ...] = 0.0
    scale: bool = False
    rows: int | None = None
    heads: int = 1
    diagonal: bool = False
    window: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Cell:
    """A recurrent equation as data: hashable, free of state, written once for every engine.

    A subclass says which kernels it owns (``declare``), which of them are multiplied together
    inside a step (``products``), how inputs are projected (``project``) and what one step does
    (``step``). Everything in ``project`` is independent of the carry, so an engine may take all
    steps at once. Fields that a subclass adds are options of its layer.

    Attributes:
      features: H, the width of the hidden state.
      gate_fn: activation of the gates.
      activation_fn: activation of the candidate state.
      use_bias: whether there are biases at all.
      heads: N, where the kernels of the previous hidden state are block-diagonal.
    """

    features: int
    gate_fn: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid
    activation_fn: Callable[[jax.Array], jax.Array] = jnp.tanh
    use_bias: bool = True
    heads: int = 1

    equation: ClassVar[str] = ""
    """The name of this class's own equation where an engine knows it; no subclass inherits it."""

    carry_names: ClassVar[tuple[str, ...]] = ("h",)
    """Names of the arrays of the carry; the last one is the output."""

    float32: ClassVar[tuple[str, ...]] = ()
    """Arrays of the carry that are kept in float32 at least."""

    starts: ClassVar[Mapping[str, float]] = {}
    """Arrays of the carry that start from this number where no ``carry_init`` was asked for."""

    at_least: ClassVar[tuple[str, ...]] = ()
    """Dtypes that sums and the state's arithmetic are at least as wide as."""

    reads_intervals: ClassVar[bool] = False
    """Whether the last feature of what ``project`` gets is the step's elapsed time."""

    needs_intervals: ClassVar[bool] = True
    """Whether that feature is there, as ones, where a call says nothing of elapsed time."""

    @property
    def feature_axes(self) -> int:
        """How many of the last axes of an input, and of every array of the carry, are features."""
        return 1

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of every array of the carry, in the order of ``carry_names``."""
        return (self.features,) * len(self.carry_names)

    @property
    def output_width(self) -> int:
        """The width of what a step puts out: of the last array of the carry."""
        return self.widths[-1]

    def space(self, inputs: tuple[int, ...]) -> tuple[int, ...]:
        """The axes of the carry between batch and width, from those of an input."""
        return inputs

    def declare(self) -> dict[str, Kernel]:
        """The kernels by parameter name, as if they all were dense."""
        raise NotImplementedError

    @property
    def kernels(self) -> dict[str, Kernel]:
        """The kernels by parameter name; with ``heads``, those of h are block-diagonal."""
        table = self.declare()
        if self.heads == 1:
            return table
        blocks = {name: dataclasses.replace(table[name], heads=self.heads) for name in self.hidden}
        return table | blocks

    def kernels_for(self, inputs: int) -> dict[str, Kernel]:
        """The kernels of a layer whose inputs have ``inputs`` features."""
        return self.kernels

    @property
    def products(self) -> tuple[tuple[str, ...], ...]:
        """The kernels of each product inside a step, in the order in which the step makes them."""
        names = tuple(name for name, k in self.declare().items() if k.source == "state")
        return (names,) if names else ()

    @property
    def hidden(self) -> tuple[str, ...]:
        """The kernels that multiply the previous hidden state (recurrent dropout acts there)."""
        return tuple(name for names in self.products for name in names)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The kernels that multiply the input."""
        return tuple(name for name, k in self.declare().items() if k.source == "input")

    def project(self, product: Product, x: jax.Array, weights: Weights) -> dict[str, jax.Array]:
        """Projects inputs (..., D) to what a step needs of them, by name, each (..., width)."""
        addends = {name: weights[name].get("bias") for name in self.inputs}
        return dict(zip(addends, product(x, **addends), strict=True))

    def of_state(self, recur: Product, weights: Weights) -> Product:
        """What every product of a step goes through before it is made."""
        return recur

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step from ``carry`` with the input projections ``u``."""
        raise NotImplementedError

    def output(
        self, product: Product, carry: Carry, u: Projected, weights: Weights
    ) -> jax.Array | None:
        """What steps put out, of the carry after them; None where that is its last array."""
        return None

    def zone_out(self, keep: Carry | float, old: Carry, new: Carry) -> Carry:
        """Keeps the old carry where ``keep`` is True, or that share of it where it is a number."""
        if isinstance(keep, tuple):
            return jax.tree.map(jnp.where, keep, old, new)
        return tuple(keep * o + (1 - keep) * n for o, n in zip(old, new, strict=True))


@dataclasses.dataclass(frozen=True)
class LinearCell(Cell):
    """A cell whose carry changes by ``a * carry + b``, feature by feature.

    A subclass says what a and b are (``elements``), which depend on the inputs alone; if ys is not
    the last array of the carry, what it is (``read``); and if kernels multiply the carry for it,
    their products (``project_state``). ``step`` follows. Because nothing else of a step needs the
    carry, an engine is free in how it runs many of them.
    """

    complex_pair: ClassVar[bool] = False
    """Whether the two arrays of the carry are the real and the imaginary part of one."""

    at_least: ClassVar[tuple[str, ...]] = ("float32",)

    def elements(self, u: Projected, weights: Weights) -> tuple[Carry, Carry]:
        """What multiplies the carry of every step, and what is added to it.

        Args:
          u: what ``project`` returned for any number of steps, arrays (..., width).
          weights: the parameters by name.

        Returns:
          a and b, each a tuple with an array (..., width) for every array of the carry, or that
          array where there is one only. What a holds may be of shape (width,), the same for all.
        """
        raise NotImplementedError

    def project_state(self, product: Product, carry: Carry, weights: Weights) -> Projected:
        """Multiplies carries by kernels, for ``read`` to find them in ``u``; here, by none."""
        return {}

    def read(self, carry: Carry, u: Projected, weights: Weights) -> jax.Array:
        """What ys is made of after steps: of their carries and of their projections."""
        return carry[-1]

    def output(
        self, product: Product, carry: Carry, u: Projected, weights: Weights
    ) -> jax.Array | None:
        """What ``read`` returns; None where that is the last array of the carry."""
        if type(self).read is LinearCell.read:
            return None
        return self.read(carry, {**u, **self.project_state(product, carry, weights)}, weights)

    def pairs(self, u: Projected, weights: Weights) -> tuple[Carry, Carry]:
        """``elements`` as tuples."""
        a, b = self.elements(u, weights)
        return _as_tuple(a), _as_tuple(b)

    def times(self, a: Carry, b: Carry) -> Carry:
        """The product of factors or states, one of which may be the same for all steps."""
        return times(a, b, self.complex_pair)

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        a, b = self.pairs(u, weights)
        return tuple(jax.tree.map(jnp.add, self.times(a, carry), b))

    def zone_out(self, keep: Carry | float, old: Carry, new: Carry) -> Carry:
        """Keeps a complex number whole, or not at all."""
        if self.complex_pair and isinstance(keep, tuple):
            keep = (keep[0],) * len(keep)
        return super().zone_out(keep, old, new)


def times(a: Carry, b: Carry, complex_pair: bool) -> Carry:
    """The product of tuples of arrays, array by array, or of two complex numbers (re, im).

    An array of fewer axes is the same for what it lacks.
    """
    a, b = zip(*map(_alike, a, b), strict=True)
    if not complex_pair:
        return tuple(x * y for x, y in zip(a, b, strict=True))
    (re, im), (other_re, other_im) = a, b
    return re * other_re - im * other_im, re * other_im + im * other_re


def _alike(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    if a.ndim == b.ndim:
        return a, b
    shape = a.shape if a.ndim > b.ndim else b.shape
    return jnp.broadcast_to(a, shape), jnp.broadcast_to(b, shape)


def _as_tuple(x: Any) -> Carry:
    return tuple(x) if isinstance(x, tuple | list) else (x,)
