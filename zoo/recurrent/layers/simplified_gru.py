"""The gated recurrent unit in its first form."""

import dataclasses
from typing import ClassVar

from zoo.recurrent.cell import Carry, Cell, Kernel, Product, Projected, Weights
from zoo.recurrent.layers.gated import GatedLayer


@dataclasses.dataclass(frozen=True)
class SimplifiedGRU(Cell):
    """The equations of ``ScanSimplifiedGRU``."""

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``ir iz in hr hz hn``; only the input's have a bias."""
        read = Kernel("input", self.features, bias=self.use_bias)
        recur = Kernel("state", self.features)
        return {"ir": read, "iz": read, "in": read, "hr": recur, "hz": recur, "hn": recur}

    @property
    def products(self) -> tuple[tuple[str, ...], ...]:
        """Both gates of h, then the candidate of r ⊙ h."""
        return (("hr", "hz"), ("hn",))

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        (h,) = carry
        r, z = recur(h, hr=u["ir"], hz=u["iz"])
        r, z = self.gate_fn(r), self.gate_fn(z)
        (n,) = recur(r * h, hn=u["in"])
        return ((1 - z) * h + z * self.activation_fn(n),)


class ScanSimplifiedGRU(GatedLayer):
    r"""Gated recurrent unit, reset before the product, one bias per gate.

    .. math::

        r = \sigma(W_{ir} x + b_{ir} + W_{hr} h), \quad
        z = \sigma(W_{iz} x + b_{iz} + W_{hz} h) \\
        n = \tanh(W_{in} x + b_{in} + W_{hn} (r \odot h)) \\
        h' = (1 - z) \odot h + z \odot n

    The carry is one array (*batch, H). Options: see ``GatedLayer``.

    When to choose it:
      To follow Cho et al. 2014 to the letter, or where weights come from Keras with
      ``reset_after=False``, from dm-haiku, or from ONNX with ``linear_before_reset=0``. Otherwise
      take ``scan_gru``: all of its products of a step are made at once, and here the candidate's
      has to wait for the reset gate.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_simplified_gru", features=4)
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> sorted(variables["params"])
      ['hn', 'hr', 'hz', 'in', 'ir', 'iz']

    References:
      Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014, equations 5-8
      (https://arxiv.org/abs/1406.1078); Chung et al., Empirical Evaluation of Gated Recurrent
      Neural Networks on Sequence Modeling, 2014 (https://arxiv.org/abs/1412.3555).
    """

    cell_class: ClassVar = SimplifiedGRU
