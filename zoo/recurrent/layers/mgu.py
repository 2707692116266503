"""The minimal gated unit."""

import dataclasses
from typing import ClassVar

from zoo.recurrent.cell import Carry, Cell, Kernel, Product, Projected, Weights
from zoo.recurrent.layers.gated import GatedLayer


@dataclasses.dataclass(frozen=True)
class MGU(Cell):
    """The equations of ``ScanMGU``."""

    reset_gate: bool = True

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``if in hf hn``; the forget gate's bias starts at one."""
        width, bias = self.features, self.use_bias
        return {
            "if": Kernel("input", width, bias=bias, bias_shift=1.0),
            "in": Kernel("input", width, bias=bias),
            "hf": Kernel("state", width),
            "hn": Kernel("state", width, bias=bias and self.reset_gate),
        }

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        (h,) = carry
        f, hn = recur(h, hf=u["if"], hn=weights["hn"].get("bias"))
        f = self.gate_fn(f)
        n = self.activation_fn(u["in"] + (f * hn if self.reset_gate else hn))
        return ((1 - f) * n + f * h,)


class ScanMGU(GatedLayer):
    r"""Minimal gated unit: one gate that both forgets and resets.

    .. math::

        f = \sigma(W_{if} x + b_{if} + W_{hf} h) \\
        n = \tanh(W_{in} x + b_{in} + f \odot (W_{hn} h + b_{hn})) \\
        h' = (1 - f) \odot n + f \odot h

    Same parameters as ``nn.scan`` over ``nn.MGUCell``: the forget gate's bias starts at one. The
    carry is one array (*batch, H). Options: see ``GatedLayer``.

    When to choose it:
      Where a GRU does well and parameters are scarce: one gate does the work of two, which takes
      two thirds of the parameters. Zhou et al. 2016 found its accuracy comparable to that of a GRU,
      with a simpler structure and faster training.

    Attributes:
      reset_gate: whether f also acts inside the candidate; without it, n = tanh(W_in x + b_in +
        W_hn h).

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_mgu", features=4)
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> sorted(variables["params"])
      ['hf', 'hn', 'if', 'in']

    References:
      Zhou et al., Minimal Gated Unit for Recurrent Neural Networks, 2016
      (https://arxiv.org/abs/1603.09420).
    """

    reset_gate: bool = True

    cell_class: ClassVar = MGU
