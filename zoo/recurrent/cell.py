"""What an engine knows of a layer's equation: its parameters, input projections and one step."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

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
        (no kernel, only what is listed below).
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

    carry_names: ClassVar[tuple[str, ...]] = ("h",)
    """Names of the arrays of the carry; the last one is the output."""

    float32: ClassVar[tuple[str, ...]] = ()
    """Arrays of the carry that are kept in float32 at least."""

    starts: ClassVar[Mapping[str, float]] = {}
    """Arrays of the carry that start from this number where no ``carry_init`` was asked for."""

    reads_intervals: ClassVar[bool] = False
    """Whether the last feature of what ``project`` gets is the step's elapsed time."""

    @property
    def feature_axes(self) -> int:
        """How many of the last axes of an input, and of every array of the carry, are features."""
        return 1

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of every array of the carry, in the order of ``carry_names``."""
        return (self.features,) * len(self.carry_names)

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

    def zone_out(self, keep: Carry | float, old: Carry, new: Carry) -> Carry:
        """Keeps the old carry where ``keep`` is True, or that share of it where it is a number."""
        if isinstance(keep, tuple):
            return jax.tree.map(jnp.where, keep, old, new)
        return tuple(keep * o + (1 - keep) * n for o, n in zip(old, new, strict=True))
