"""The equations of the leaf layers: each cell's parameters, input projections and one step."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp

Carry = tuple[jax.Array, ...]
Weights = Mapping[str, Mapping[str, jax.Array]]


class Product(Protocol):
    """Multiplies by several kernels of one cell at once, asked for by name."""

    def __call__(self, a: jax.Array, **addends: jax.Array | None) -> tuple[jax.Array, ...]:
        """Returns ``a @ kernel[name] + addend`` for every ``name=addend``, in that order."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One projection of a cell: where it reads from, and what else it owns.

    Attributes:
      source: "input" (kernel of shape (D, width)), "state" ((width of h, width)) or "none"
        (no kernel, only what is listed below).
      width: number of columns.
      bias: whether it owns a bias of shape (width,).
      bias_shift: what is added to the bias when it is initialised.
      scale: whether it owns a scale of shape (width,), for layer normalisation.
      rows: number of rows where ``source`` does not tell.
    """

    source: str
    width: int
    bias: bool = False
    bias_shift: float = 0.0
    scale: bool = False
    rows: int | None = None


@dataclasses.dataclass(frozen=True)
class Cell:
    """A recurrent cell as data: hashable, free of state, written once for every engine.

    A subclass says which kernels it owns (``kernels``), which of them it asks for together inside
    a step (``asks``), how inputs are projected (``project``) and what one step does (``step``).
    Everything in ``project`` is independent of the carry, so an engine may take all steps at once.

    Attributes:
      features: H, the width of the hidden state.
      gate_fn: activation of the gates.
      activation_fn: activation of the candidate state.
      use_bias: whether there are biases at all.
    """

    features: int
    gate_fn: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid
    activation_fn: Callable[[jax.Array], jax.Array] = jnp.tanh
    use_bias: bool = True

    carry_names: ClassVar[tuple[str, ...]] = ("h",)

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of every array of the carry, in the order of ``carry_names``."""
        return (self.features,) * len(self.carry_names)

    @property
    def kernels(self) -> dict[str, Kernel]:
        """The projections of the cell by parameter name."""
        raise NotImplementedError

    @property
    def asks(self) -> tuple[tuple[str, ...], ...]:
        """The kernels of each product inside a step, in the order in which the step asks."""
        return (tuple(name for name, k in self.kernels.items() if k.source == "state"),)

    @property
    def hidden(self) -> tuple[str, ...]:
        """The kernels that multiply the previous hidden state (recurrent dropout acts there)."""
        return tuple(name for names in self.asks for name in names)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The kernels that multiply the input."""
        return tuple(name for name, k in self.kernels.items() if k.source == "input")

    def project(self, product: Product, x: jax.Array, weights: Weights) -> dict[str, jax.Array]:
        """Projects inputs (..., D) to what a step needs of them, by name, each (..., width)."""
        addends = {name: weights[name].get("bias") for name in self.inputs}
        return dict(zip(addends, product(x, **addends), strict=True))

    def step(
        self, recur: Product, carry: Carry, u: Mapping[str, jax.Array], weights: Weights
    ) -> Carry:
        """Takes one step from ``carry`` with the input projections ``u``."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class GRU(Cell):
    """Gated recurrent unit, reset after the product (Cho et al. 2014, as in cuDNN)."""

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Kernels ``ir iz in hr hz hn``; ``hn`` has a bias of its own, inside the reset."""
        read = Kernel("input", self.features, bias=self.use_bias)
        recur = Kernel("state", self.features)
        gated = Kernel("state", self.features, bias=self.use_bias)
        return {"ir": read, "iz": read, "in": read, "hr": recur, "hz": recur, "hn": gated}

    def step(
        self, recur: Product, carry: Carry, u: Mapping[str, jax.Array], weights: Weights
    ) -> Carry:
        """h' = (1 − z) ⊙ n + z ⊙ h, with n = tanh(u_n + r ⊙ (W_hn h + b_hn))."""
        (h,) = carry
        r, z, hn = recur(h, hr=u["ir"], hz=u["iz"], hn=weights["hn"].get("bias"))
        r, z = self.gate_fn(r), self.gate_fn(z)
        n = self.activation_fn(u["in"] + r * hn)
        return ((1 - z) * n + z * h,)


@dataclasses.dataclass(frozen=True)
class LSTM(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), with an optional projection.

    Attributes:
      forget_bias: added to the forget gate's bias when it is initialised.
      projection: P, the width of h after a learned projection (Sak et al. 2014); None for none.
    """

    forget_bias: float = 0.0
    projection: int | None = None

    carry_names: ClassVar[tuple[str, ...]] = ("c", "h")

    @property
    def widths(self) -> tuple[int, ...]:
        """(H, H), or (H, P) with a projection."""
        return (self.features, self.projection or self.features)

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Kernels ``ii if ig io hi hf hg ho`` and ``proj``; ``h*`` have the biases."""
        width, bias = self.features, self.use_bias
        table = {f"i{gate}": Kernel("input", width) for gate in "ifgo"}
        for gate in "ifgo":
            shift = self.forget_bias if gate == "f" else 0.0
            table[f"h{gate}"] = Kernel("state", width, bias=bias, bias_shift=shift)
        if self.projection is not None:
            table["proj"] = Kernel("state", self.projection, rows=width)
        return table

    @property
    def hidden(self) -> tuple[str, ...]:
        """The four gates: the projection reads the new state, not the previous one."""
        return self.asks[0]

    @property
    def asks(self) -> tuple[tuple[str, ...], ...]:
        """The four gates together, then the projection."""
        gates = (("hi", "hf", "hg", "ho"),)
        return gates if self.projection is None else (*gates, ("proj",))

    def project(self, product: Product, x: jax.Array, weights: Weights) -> dict[str, jax.Array]:
        """Adds the biases of ``h*`` here: nothing in the step comes between them and the inputs."""
        addends = {f"i{gate}": weights[f"h{gate}"].get("bias") for gate in "ifgo"}
        return dict(zip(addends, product(x, **addends), strict=True))

    def step(
        self, recur: Product, carry: Carry, u: Mapping[str, jax.Array], weights: Weights
    ) -> Carry:
        """c' = f ⊙ c + i ⊙ g and h' = o ⊙ tanh(c'), projected where a projection was asked for."""
        c, h = carry
        i, f, g, o = recur(h, hi=u["ii"], hf=u["if"], hg=u["ig"], ho=u["io"])
        c = self.gate_fn(f) * c + self.gate_fn(i) * self.activation_fn(g)
        h = self.gate_fn(o) * self.activation_fn(self.read(c, weights))
        if self.projection is not None:
            (h,) = recur(h, proj=None)
        return c, h

    def read(self, c: jax.Array, weights: Weights) -> jax.Array:
        """What the output gate sees of the cell state: here, all of it."""
        return c


@dataclasses.dataclass(frozen=True)
class SimplifiedGRU(Cell):
    """Gated recurrent unit in its first form: reset before the product (Cho et al. 2014)."""

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Kernels ``ir iz in hr hz hn``; only the input's have a bias."""
        read = Kernel("input", self.features, bias=self.use_bias)
        recur = Kernel("state", self.features)
        return {"ir": read, "iz": read, "in": read, "hr": recur, "hz": recur, "hn": recur}

    @property
    def asks(self) -> tuple[tuple[str, ...], ...]:
        """Both gates of h, then the candidate of r ⊙ h."""
        return (("hr", "hz"), ("hn",))

    def step(
        self, recur: Product, carry: Carry, u: Mapping[str, jax.Array], weights: Weights
    ) -> Carry:
        """h' = (1 − z) ⊙ h + z ⊙ n, with n = tanh(u_n + W_hn (r ⊙ h))."""
        (h,) = carry
        r, z = recur(h, hr=u["ir"], hz=u["iz"])
        r, z = self.gate_fn(r), self.gate_fn(z)
        (n,) = recur(r * h, hn=u["in"])
        return ((1 - z) * h + z * self.activation_fn(n),)


@dataclasses.dataclass(frozen=True)
class Elman(Cell):
    """Simple recurrent network (Elman 1990)."""

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Kernels ``i`` (with the bias) and ``h``."""
        read = Kernel("input", self.features, bias=self.use_bias)
        return {"i": read, "h": Kernel("state", self.features)}

    def step(
        self, recur: Product, carry: Carry, u: Mapping[str, jax.Array], weights: Weights
    ) -> Carry:
        """h' = tanh(u + W_h h)."""
        (h,) = carry
        (n,) = recur(h, h=u["i"])
        return (self.activation_fn(n),)


@dataclasses.dataclass(frozen=True)
class MGU(Cell):
    """Minimal gated unit (Zhou et al. 2016).

    Attributes:
      reset_gate: whether the forget gate also acts inside the candidate.
    """

    reset_gate: bool = True

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Kernels ``if in hf hn``; the forget gate's bias starts at one."""
        width, bias = self.features, self.use_bias
        return {
            "if": Kernel("input", width, bias=bias, bias_shift=1.0),
            "in": Kernel("input", width, bias=bias),
            "hf": Kernel("state", width),
            "hn": Kernel("state", width, bias=bias and self.reset_gate),
        }

    def step(
        self, recur: Product, carry: Carry, u: Mapping[str, jax.Array], weights: Weights
    ) -> Carry:
        """h' = (1 − f) ⊙ n + f ⊙ h, with n = tanh(u_n + f ⊙ (W_hn h + b_hn))."""
        (h,) = carry
        f, hn = recur(h, hf=u["if"], hn=weights["hn"].get("bias"))
        f = self.gate_fn(f)
        n = self.activation_fn(u["in"] + (f * hn if self.reset_gate else hn))
        return ((1 - f) * n + f * h,)
