"""The independently recurrent network."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
from flax.linen import initializers
from flax.typing import Initializer

from zoo.recurrent.cell import Carry, Cell, Kernel, Product, Projected, Weights
from zoo.recurrent.layers.gated import Activation, GatedLayer


@dataclasses.dataclass(frozen=True)
class IndRNN(Cell):
    """The equations of ``ScanIndRNN``."""

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``i`` (with the bias) and ``u``, a vector."""
        read = Kernel("input", self.features, bias=self.use_bias)
        return {"i": read, "u": Kernel("state", self.features, diagonal=True)}

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        (h,) = carry
        (n,) = recur(h, u=u["i"])
        return (self.activation_fn(n),)


class ScanIndRNN(GatedLayer):
    r"""Independently recurrent network: every feature of the state sees its own past alone.

    .. math::

        h' = \mathrm{relu}(W_i x + b_i + u \odot h)

    The parameter ``u`` is a vector (H,), initialised by ``recurrent_kernel_init``: uniformly in
    [0, 1) by default. The Jacobian of a step is diagonal, so there is no matrix product in the time
    loop. The carry is one array (*batch, H). Options: see ``GatedLayer``; there are no ``heads``.

    When to choose it:
      For long sequences and deep stacks. One number per feature decides how its gradient shrinks or
      grows, and can be kept near one; Li et al. 2018 report sequences of more than 5,000 steps and
      networks of 21 layers. Features meet in the next layer only, so use two layers or more.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_indrnn", features=4)
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> variables["params"]["u"].shape
      (4,)

    References:
      Li et al., Independently Recurrent Neural Network (IndRNN), 2018
      (https://arxiv.org/abs/1803.04831).
    """

    activation_fn: Activation | str = nn.relu
    recurrent_kernel_init: Initializer = initializers.uniform(1.0)

    cell_class: ClassVar = IndRNN

    @nn.nowrap
    def _vector_init(self, name: str, drawn: Weights) -> tuple[str, Initializer]:
        return "recurrent_kernel_init", self.recurrent_kernel_init
