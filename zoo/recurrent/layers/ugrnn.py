"""The update gate recurrent network."""

import dataclasses
from typing import ClassVar

from zoo.recurrent.cell import Carry, Cell, Kernel, Product, Projected, Weights
from zoo.recurrent.layers.gated import GatedLayer


@dataclasses.dataclass(frozen=True)
class UGRNN(Cell):
    """The equations of ``ScanUGRNN``."""

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``ig in hg hn``; only the input's have a bias."""
        read = Kernel("input", self.features, bias=self.use_bias)
        recur = Kernel("state", self.features)
        return {"ig": read, "in": read, "hg": recur, "hn": recur}

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        (h,) = carry
        g, n = recur(h, hg=u["ig"], hn=u["in"])
        g = self.gate_fn(g)
        return (g * h + (1 - g) * self.activation_fn(n),)


class ScanUGRNN(GatedLayer):
    r"""Update gate recurrent network: a simple network whose state is mixed by one gate.

    .. math::

        g = \sigma(W_{ig} x + b_{ig} + W_{hg} h), \quad
        n = \tanh(W_{in} x + b_{in} + W_{hn} h) \\
        h' = g \odot h + (1 - g) \odot n

    The carry is one array (*batch, H). Options: see ``GatedLayer``.

    When to choose it:
      To find out whether a GRU's reset gate is needed: one gate mixes the state with a candidate
      that sees all of the state, with two thirds of a GRU's parameters. Collins et al. 2017 compare
      both, in how much they can store and how well they can be trained.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_ugrnn", features=4)
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> sorted(variables["params"])
      ['hg', 'hn', 'ig', 'in']

    References:
      Collins, Sohl-Dickstein & Sussillo, Capacity and Trainability in Recurrent Neural Networks,
      2017 (https://arxiv.org/abs/1611.09913).
    """

    cell_class: ClassVar = UGRNN
