"""The scalar LSTM of xLSTM, with exponential gates."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from zoo.recurrent.call import option_checks as takes
from zoo.recurrent.call.options import Option
from zoo.recurrent.cell import Carry, Cell, Kernel, Product, Projected, Weights
from zoo.recurrent.layers.gated import GatedLayer


@dataclasses.dataclass(frozen=True)
class SLSTM(Cell):
    """The equations of ``ScanSLSTM``."""

    forget_gate: str = "sigmoid"

    carry_names: ClassVar[tuple[str, ...]] = ("c", "n", "m", "h")
    float32: ClassVar[tuple[str, ...]] = ("m",)
    starts: ClassVar[Mapping[str, float]] = {"m": -1e30}

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``ii if iz io hi hf hz ho``; only the input's have a bias."""
        width = self.features
        table = {f"i{gate}": Kernel("input", width, bias=self.use_bias) for gate in "ifzo"}
        per_head = np.linspace(3.4, 6.0, max(width // self.heads, 1))
        shift = tuple(np.tile(per_head, self.heads)[:width].tolist())
        table["if"] = dataclasses.replace(table["if"], bias_shift=shift)
        return table | {f"h{gate}": Kernel("state", width) for gate in "ifzo"}

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        c, n, m, h = carry
        i, f, z, o = recur(h, hi=u["ii"], hf=u["if"], hz=u["iz"], ho=u["io"])
        log_f = f if self.forget_gate == "exponential" else jax.nn.log_sigmoid(f)
        largest = jnp.maximum(log_f + m, i)
        keep, write = jnp.exp(log_f + m - largest), jnp.exp(i - largest)
        c = keep * c + write * self.activation_fn(z)
        n = keep * n + write
        return c, n, largest, self.gate_fn(o) * (c / n)

    def zone_out(self, keep: Carry | float, old: Carry, new: Carry) -> Carry:
        """Mixes c and n at one scale: both stand for themselves times exp(m)."""
        if isinstance(keep, tuple):
            together = (keep[0], keep[0], keep[0], keep[3])
            return jax.tree.map(jnp.where, together, old, new)
        (c, n, m, h), (new_c, new_n, new_m, new_h) = old, new
        largest = jnp.maximum(m, new_m)
        a = (keep * jnp.exp(m - largest)).astype(c.dtype)
        b = ((1 - keep) * jnp.exp(new_m - largest)).astype(c.dtype)
        h = keep * h + (1 - keep) * new_h
        return a * c + b * new_c, a * n + b * new_n, largest, h


class ScanSLSTM(GatedLayer):
    r"""Scalar LSTM of xLSTM: exponential gates, normalised by a running maximum.

    .. math::

        i, f, z, o = W_{i\cdot} x + b_{i\cdot} + W_{h\cdot} h \\
        m' = \max(\log\sigma(f) + m, i) \\
        c' = e^{\log\sigma(f) + m - m'} \odot c + e^{i - m'} \odot \tanh(z) \\
        n' = e^{\log\sigma(f) + m - m'} \odot n + e^{i - m'} \\
        h' = \sigma(o) \odot c' / n'

    The carry is (c, n, m, h), arrays (*batch, H); m is float32 at least, whatever ``carry_dtype``
    says. The initial c and n are 0 and m is −1e30, far below any gate: so a first step has n' = 1
    exactly, also after a reset of one row of a batch, n' never falls below 1, and nothing is not
    finite. A ``carry_init`` that is given draws all four, and with ``learned_carry`` all four are
    parameters, which start from it; then n has to stay away from 0, and m is an ordinary number.
    Zoneout keeps c, n and m together.
    The forget gate's bias starts linearly spaced from 3.4 to 6 in every head. Options: see
    ``GatedLayer``; the paper's recurrent kernels have ``heads``.

    When to choose it:
      Where a model has to revise what it has stored: an exponential gate can give a new input far
      more weight than all that came before, which gates between 0 and 1 cannot (Beck et al. 2024).
      Its forget gates start near one, so a new layer remembers long. It costs four arrays of state,
      two more than an LSTM.

    Attributes:
      forget_gate: "sigmoid", or "exponential" for f itself in the place of log σ(f).

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_slstm", features=4, heads=2)
      >>> xs = jnp.ones((7, 2, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> (c, n, m, h), ys = layer.apply(variables, None, xs)
      >>> variables["params"]["hi"]["kernel"].shape, ys.shape
      ((2, 2, 2), (7, 2, 4))

    References:
      Beck et al., xLSTM: Extended Long Short-Term Memory, 2024 (https://arxiv.org/abs/2405.04517).
    """

    forget_gate: str = "sigmoid"

    cell_class: ClassVar = SLSTM
    own_options: ClassVar = (
        Option(
            "forget_gate",
            "sigmoid or exponential",
            "what the forget gate is made of.",
            takes.one_of("sigmoid", "exponential"),
        ),
    )
