"""The gated recurrent unit."""

import dataclasses
from typing import ClassVar

from zoo.recurrent.call import options
from zoo.recurrent.cell import Carry, Cell, Kernel, Product, Projected, Weights
from zoo.recurrent.engine import KERNEL_IMPLEMENTATIONS
from zoo.recurrent.layers.gated import GatedLayer


@dataclasses.dataclass(frozen=True)
class GRU(Cell):
    """The equations of ``ScanGRU``."""

    equation: ClassVar[str] = "gru"

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``ir iz in hr hz hn``; ``hn`` has a bias of its own, inside the reset."""
        read = Kernel("input", self.features, bias=self.use_bias)
        recur = Kernel("state", self.features)
        gated = Kernel("state", self.features, bias=self.use_bias)
        return {"ir": read, "iz": read, "in": read, "hr": recur, "hz": recur, "hn": gated}

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        (h,) = carry
        r, z, hn = recur(h, hr=u["ir"], hz=u["iz"], hn=weights["hn"].get("bias"))
        r, z = self.gate_fn(r), self.gate_fn(z)
        n = self.activation_fn(u["in"] + r * hn)
        return ((1 - z) * n + z * h,)


class ScanGRU(GatedLayer):
    r"""Gated recurrent unit, reset after the product, as in Flax, PyTorch and cuDNN.

    .. math::

        r = \sigma(W_{ir} x + b_{ir} + W_{hr} h) \\
        z = \sigma(W_{iz} x + b_{iz} + W_{hz} h) \\
        n = \tanh(W_{in} x + b_{in} + r \odot (W_{hn} h + b_{hn})) \\
        h' = (1 - z) \odot n + z \odot h

    Same parameters as ``nn.scan`` over ``nn.GRUCell``; same equations as PyTorch and cuDNN. The
    carry is one array (*batch, H). Options: see ``GatedLayer``.

    When to choose it:
      The first gated layer to try. Two gates decide what is kept and what is read, with one array
      of state and three quarters of an LSTM's parameters; Chung et al. 2014 found GRU and LSTM
      comparable, and both better than a network without gates. Choose it too where weights come
      from PyTorch, cuDNN or Flax, whose equations it has.

    Attributes:
      implementation: as ``LeafLayer`` has it, or "kernel": the whole loop over time is one GPU
        kernel, where ``kernel_obstacle`` returns None, and "fused" runs elsewhere. "auto" is that
        where there is one GPU.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_gru", features=4)
      >>> xs = jnp.ones((7, 2, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> carry, ys = layer.apply(variables, None, xs)
      >>> carry.shape, ys.shape
      ((2, 4), (7, 2, 4))

    References:
      Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014
      (https://arxiv.org/abs/1406.1078).
    """

    cell_class: ClassVar = GRU
    own_options: ClassVar = (options.implementation(*KERNEL_IMPLEMENTATIONS),)
