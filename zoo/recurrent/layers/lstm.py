"""Long short-term memory."""

import dataclasses
from typing import ClassVar

import jax

from zoo.recurrent.call import options
from zoo.recurrent.cell import Carry, Cell, Kernel, Product, Projected, Weights
from zoo.recurrent.engine import KERNEL_IMPLEMENTATIONS
from zoo.recurrent.layers.gated import GatedLayer


@dataclasses.dataclass(frozen=True)
class LSTM(Cell):
    """The equations of ``ScanLSTM``."""

    forget_bias: float = 0.0
    projection: int | None = None
    peepholes: bool = False
    coupled_gates: bool = False

    equation: ClassVar[str] = "lstm"
    carry_names: ClassVar[tuple[str, ...]] = ("c", "h")

    @property
    def gates(self) -> str:
        """Input, forget, candidate and output, without the forget gate where it follows from i."""
        return "igo" if self.coupled_gates else "ifgo"

    @property
    def widths(self) -> tuple[int, ...]:
        """(H, H), or (H, P) with a projection."""
        return (self.features, self.projection or self.features)

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``ii if ig io hi hf hg ho proj pi pf po``; ``h*`` have the biases."""
        width, bias = self.features, self.use_bias
        table = {f"i{gate}": Kernel("input", width) for gate in self.gates}
        for gate in self.gates:
            shift = self.forget_bias if gate == "f" else 0.0
            table[f"h{gate}"] = Kernel("state", width, bias=bias, bias_shift=shift)
        if self.projection is not None:
            table["proj"] = Kernel("state", self.projection, rows=width)
        if self.peepholes:
            seen = self.gates.replace("g", "")
            table |= {f"p{gate}": Kernel("state", width, diagonal=True) for gate in seen}
        return table

    @property
    def hidden(self) -> tuple[str, ...]:
        """The gates: the projection reads the new state, and peepholes the cell state."""
        return self.products[0]

    @property
    def products(self) -> tuple[tuple[str, ...], ...]:
        """The gates together; peepholes on c, then on the new c; the projection."""
        products = [tuple(f"h{gate}" for gate in self.gates)]
        if self.peepholes:
            products += [("pi",) if self.coupled_gates else ("pi", "pf"), ("po",)]
        if self.projection is not None:
            products.append(("proj",))
        return tuple(products)

    def project(self, product: Product, x: jax.Array, weights: Weights) -> dict[str, jax.Array]:
        """Adds the biases of ``h*`` here: nothing in the step comes between them and the inputs."""
        addends = {f"i{gate}": weights[f"h{gate}"].get("bias") for gate in self.gates}
        return dict(zip(addends, product(x, **addends), strict=True))

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        c, h = carry
        sums = recur(h, **{f"h{gate}": u[f"i{gate}"] for gate in self.gates})
        gate = dict(zip(self.gates, sums, strict=True))
        if self.peepholes:
            seen = "i" if self.coupled_gates else "if"
            sums = recur(c, **{f"p{name}": gate[name] for name in seen})
            gate |= dict(zip(seen, sums, strict=True))
        i = self.gate_fn(gate["i"])
        f = 1 - i if self.coupled_gates else self.gate_fn(gate["f"])
        c = f * c + i * self.activation_fn(gate["g"])
        o = gate["o"]
        if self.peepholes:
            (o,) = recur(c, po=o)
        h = self.gate_fn(o) * self.activation_fn(self.read(c, weights))
        if self.projection is not None:
            (h,) = recur(h, proj=None)
        return c, h

    def read(self, c: jax.Array, weights: Weights) -> jax.Array:
        """What the output gate sees of the cell state: here, all of it."""
        return c


class ScanLSTM(GatedLayer):
    r"""Long short-term memory, with optional projection of h, peepholes and coupled gates.

    .. math::

        i = \sigma(W_{ii} x + W_{hi} h + b_{hi}), \quad
        f = \sigma(W_{if} x + W_{hf} h + b_{hf}) \\
        g = \tanh(W_{ig} x + W_{hg} h + b_{hg}), \quad
        o = \sigma(W_{io} x + W_{ho} h + b_{ho}) \\
        c' = f \odot c + i \odot g \\
        h' = o \odot \tanh(c')

    Same parameters as ``nn.scan`` over ``nn.LSTMCell``. The carry is (c, h), Flax's order, arrays
    (*batch, H). Options: see ``GatedLayer``.

    When to choose it:
      Where a model has to add up or count: the cell state is added to and kept apart from the
      output, so it can grow, which a GRU's state, always a mean of bounded numbers, cannot. Most
      published recurrent models are LSTMs. A projection makes a wide cell state affordable, since
      the recurrent products then read P features and not H (Sak et al. 2014).

    Attributes:
      forget_bias: added to the forget gate's bias when it is initialised.
      projection: P, for h' = W_proj (o ⊙ tanh(c')): then h and ys have P features, and the
        parameter ``proj/kernel`` has the shape (H, P).
      peepholes: whether gates see the cell state: p_i ⊙ c and p_f ⊙ c are added to what i and f
        are made of, and p_o ⊙ c' to that of o. The parameters ``pi``, ``pf`` and ``po`` are vectors
        (H,), initialised by ``bias_init``.
      coupled_gates: whether f = 1 − i; then there are no ``if`` and ``hf`` (and no ``pf``), and
        ``forget_bias`` means nothing.
      implementation: as ``LeafLayer`` has it, or "kernel": the whole loop over time is one GPU
        kernel, where ``kernel_obstacle`` returns None, and "fused" runs elsewhere. "auto" is that
        where there is one GPU.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_lstm", features=4, projection=2)
      >>> xs = jnp.ones((7, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> (c, h), ys = layer.apply(variables, None, xs)
      >>> c.shape, h.shape, ys.shape
      ((4,), (2,), (7, 2))

    References:
      Hochreiter & Schmidhuber, Long Short-Term Memory, 1997 (doi:10.1162/neco.1997.9.8.1735);
      Gers, Schmidhuber & Cummins, Learning to Forget, 2000 (doi:10.1162/089976600300015015); Sak,
      Senior & Beaufays, Long Short-Term Memory Based Recurrent Neural Network Architectures, 2014
      (https://arxiv.org/abs/1402.1128); Jozefowicz et al., An Empirical Exploration of Recurrent
      Network Architectures, 2015 (the forget bias); Gers, Schraudolph & Schmidhuber, Learning
      Precise Timing with LSTM Recurrent Networks, 2002 (peepholes); Greff et al., LSTM: A Search
      Space Odyssey, 2015 (coupled gates, https://arxiv.org/abs/1503.04069).
    """

    forget_bias: float = 0.0
    projection: int | None = None
    peepholes: bool = False
    coupled_gates: bool = False

    cell_class: ClassVar = LSTM
    own_options: ClassVar = (options.implementation(*KERNEL_IMPLEMENTATIONS),)
