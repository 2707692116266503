"""The simple recurrent network."""

import dataclasses
from typing import ClassVar

from zoo.recurrent.cell import Carry, Cell, Kernel, Product, Projected, Weights
from zoo.recurrent.layers.gated import GatedLayer


@dataclasses.dataclass(frozen=True)
class Elman(Cell):
    """The equations of ``ScanElman``."""

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``i`` (with the bias) and ``h``."""
        read = Kernel("input", self.features, bias=self.use_bias)
        return {"i": read, "h": Kernel("state", self.features)}

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        (h,) = carry
        (n,) = recur(h, h=u["i"])
        return (self.activation_fn(n),)


class ScanElman(GatedLayer):
    r"""Elman's simple recurrent network, without gates.

    .. math::

        h' = \tanh(W_i x + b_i + W_h h)

    Same parameters as ``nn.scan`` over ``nn.SimpleCell``. The carry is one array (*batch, H).
    ``activation_fn="relu"`` gives the network of Le, Jaitly & Hinton 2015. Options: see
    ``GatedLayer``.

    When to choose it:
      As the baseline that gates are measured against, for short dependencies, and where a step has
      to be cheap: it is one product and one activation. Nothing protects what is stored, so
      gradients shrink or grow with every step, which is what gated layers were made for.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_elman", features=4, activation_fn="relu")
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> sorted(variables["params"])
      ['h', 'i']

    References:
      Elman, Finding Structure in Time, 1990 (doi:10.1207/s15516709cog1402_1).
    """

    cell_class: ClassVar = Elman
