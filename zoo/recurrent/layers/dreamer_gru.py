"""The block-diagonal GRU of DreamerV3."""

import dataclasses
import math
from typing import ClassVar

import flax.linen as nn
import jax
from flax.typing import Dtype, Initializer

from zoo.recurrent.cell import Carry, Cell, Kernel, Product, Projected, Weights
from zoo.recurrent.layers.gated import GatedLayer


@dataclasses.dataclass(frozen=True)
class DreamerGRU(Cell):
    """The equations of ``ScanDreamerGRU``."""

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``ir iz in hr hz hn``; only the input's have a bias."""
        read = Kernel("input", self.features, bias=self.use_bias)
        recur = Kernel("state", self.features)
        return {"ir": read, "iz": read, "in": read, "hr": recur, "hz": recur, "hn": recur}

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        (h,) = carry
        r, z, n = recur(h, hr=u["ir"], hz=u["iz"], hn=u["in"])
        r, z = self.gate_fn(r), self.gate_fn(z - 1)
        return (z * self.activation_fn(r * n) + (1 - z) * h,)


@dataclasses.dataclass(frozen=True)
class JointFanIn:
    """Draws a truncated normal kernel of variance 1 / fan-in, which counts other kernels' rows too.

    Attributes:
      others: rows of the other kernels whose products are added to this one's; the layer fills it.
    """

    others: int = 0

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
        """Draws a kernel (rows, width)."""
        # The standard deviation of a normal distribution that is cut off at two of them.
        scale = math.sqrt(1 / (shape[-2] + self.others)) / 0.87962566103423978
        return scale * jax.random.truncated_normal(key, -2, 2, shape, dtype)


class ScanDreamerGRU(GatedLayer):
    r"""Block-diagonal GRU of DreamerV3: the reset gate multiplies the whole candidate.

    .. math::

        p_g = W_{ig} x + b_{ig} + W_{hg} h, \quad g = r, n, z \\
        r = \sigma(p_r), \quad n = \tanh(r \odot p_n), \quad z = \sigma(p_z - 1) \\
        h' = z \odot n + (1 - z) \odot h

    Two things are unlike in any other GRU: r multiplies the input's part of the candidate too, and
    the −1 is a constant, not the first value of a bias. Kernels are drawn from a truncated normal
    distribution whose fan-in counts all that is summed, D + H/heads, unless an initialiser is
    given. The carry is one array (*batch, H). Options: see ``GatedLayer``.

    When to choose it:
      For world models in the manner of DreamerV3, whose sequence model it is. Recurrent kernels in
      8 blocks cost an eighth of full ones, so the state can be wide; the −1 makes a new layer keep
      more than it writes.

    Attributes:
      heads: blocks of the recurrent kernels; None for 8, or, where 8 does not divide H, for the
        greatest common divisor of both.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_dreamer_gru", features=16)
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> variables["params"]["hr"]["kernel"].shape
      (8, 2, 2)

    References:
      Hafner et al., Mastering Diverse Domains through World Models, 2023
      (https://arxiv.org/abs/2301.04104).
    """

    kernel_init: Initializer = JointFanIn()
    recurrent_kernel_init: Initializer = JointFanIn()
    heads: int | None = None  # pyright: ignore[reportIncompatibleVariableOverride]

    cell_class: ClassVar = DreamerGRU

    def __post_init__(self) -> None:
        """Chooses the number of heads, and checks the options."""
        if self.heads is None:
            whole = isinstance(self.features, int) and not isinstance(self.features, bool)
            object.__setattr__(self, "heads", math.gcd(8, self.features) if whole else 1)
        super().__post_init__()

    @nn.nowrap
    def _kernel_init(self, name: str, kernel: Kernel, inputs: int) -> Initializer:
        init = super()._kernel_init(name, kernel, inputs)
        if not isinstance(init, JointFanIn):
            return init
        block = self.features // (self.heads or 1)
        return JointFanIn(block if kernel.source == "input" else inputs)
