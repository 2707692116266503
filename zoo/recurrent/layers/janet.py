"""The LSTM with nothing but a forget gate."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from zoo.recurrent.call import option_checks as takes
from zoo.recurrent.call.options import Option
from zoo.recurrent.cell import Carry, Cell, Kernel, Product, Projected, Weights
from zoo.recurrent.layers.gated import GatedLayer


@dataclasses.dataclass(frozen=True)
class JANET(Cell):
    """The equations of ``ScanJANET``."""

    beta: float = 1.0

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``if in hf hn``; only the input's have a bias."""
        read = Kernel("input", self.features, bias=self.use_bias)
        recur = Kernel("state", self.features)
        return {"if": read, "in": read, "hf": recur, "hn": recur}

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        (h,) = carry
        s, n = recur(h, hf=u["if"], hn=u["in"])
        return (self.gate_fn(s) * h + (1 - self.gate_fn(s - self.beta)) * self.activation_fn(n),)


class ScanJANET(GatedLayer):
    r"""JANET: an LSTM with nothing but a forget gate, whose state is its output.

    .. math::

        s = W_{if} x + b_{if} + W_{hf} h, \quad
        n = \tanh(W_{in} x + b_{in} + W_{hn} h) \\
        h' = \sigma(s) \odot h + (1 - \sigma(s - \beta)) \odot n

    The carry is one array (*batch, H). Options: see ``GatedLayer``.

    When to choose it:
      For long dependencies with half of an LSTM's parameters: van der Westhuizen & Lasenby 2018
      found that a forget gate alone, with chrono initialisation, did better than the LSTM on
      several data sets. Give ``max_steps``, the length of the longest dependency, since chrono
      initialisation is part of that result.

    Attributes:
      beta: how much less is forgotten than is written.
      max_steps: for chrono initialisation, the length of the longest dependencies expected: the
        forget gate's bias is log(u), u uniform in [1, max_steps − 1]. None for ``bias_init``.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_janet", features=4, max_steps=100)
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> bool((variables["params"]["if"]["bias"] < jnp.log(99)).all())
      True

    References:
      van der Westhuizen & Lasenby, The Unreasonable Effectiveness of the Forget Gate, 2018
      (https://arxiv.org/abs/1804.04849); Tallec & Ollivier, Can Recurrent Neural Networks Warp
      Time?, 2018 (chrono initialisation, https://arxiv.org/abs/1804.11188).
    """

    beta: float = 1.0
    max_steps: int | None = None

    cell_class: ClassVar = JANET
    own_options: ClassVar = (
        Option("beta", "finite number", "how much less is forgotten than written.", takes.finite),
        Option(
            "max_steps",
            "int >= 1, or None",
            "length of the longest dependencies, for chrono initialisation.",
            takes.positive_int_or_none,
        ),
    )

    @nn.nowrap
    def _bias_init(self, name: str) -> Initializer:
        if name != "if" or self.max_steps is None:
            return self.bias_init
        longest = max(self.max_steps - 1, 1)

        def chrono(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
            return jnp.log(jax.random.uniform(key, shape, dtype, 1.0, longest))

        return chrono
