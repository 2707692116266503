"""The closed-form continuous-time network."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from zoo.recurrent.call import option_checks as takes
from zoo.recurrent.call.options import Option
from zoo.recurrent.cell import Carry, Cell, Kernel, Product, Projected, Weights
from zoo.recurrent.layers.gated import GatedLayer

_HEADS = ("w1", "w2", "wa", "wb")


def _scaled_tanh(x: jax.Array) -> jax.Array:
    return 1.7159 * jnp.tanh(0.666 * x)


@dataclasses.dataclass(frozen=True)
class CfC(Cell):
    """The equations of ``ScanCfC``."""

    backbone_features: int = 128
    backbone_layers: int = 1

    reads_intervals: ClassVar[bool] = True

    @property
    def _deeper(self) -> tuple[str, ...]:
        return tuple(f"b{k}" for k in range(1, self.backbone_layers))

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``i`` and ``h`` of the backbone, its deeper ``b1 b2 …``, and ``w1 w2 wa wb``."""
        units, bias = self.backbone_features, self.use_bias
        table = {"i": Kernel("input", units, bias=bias), "h": Kernel("state", units)}
        deeper = Kernel("state", units, bias=bias, rows=units)
        last = Kernel("state", self.features, bias=bias, rows=units)
        return table | dict.fromkeys(self._deeper, deeper) | dict.fromkeys(_HEADS, last)

    @property
    def products(self) -> tuple[tuple[str, ...], ...]:
        """The backbone's layers one after the other, then what is read from it."""
        return ("h",), *((name,) for name in self._deeper), _HEADS

    @property
    def hidden(self) -> tuple[str, ...]:
        """The backbone's first layer."""
        return ("h",)

    def project(self, product: Product, x: jax.Array, weights: Weights) -> dict[str, jax.Array]:
        """Projects all but the last feature, which is the elapsed time."""
        return {**super().project(product, x[..., :-1], weights), "time": x[..., -1:]}

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        (h,) = carry
        (b,) = recur(h, h=u["i"])
        for name in self._deeper:
            (b,) = recur(_scaled_tanh(b), **{name: weights[name].get("bias")})
        biases = {name: weights[name].get("bias") for name in _HEADS}
        f1, f2, a, t = recur(_scaled_tanh(b), **biases)
        s = self.gate_fn(a * u["time"].astype(a.dtype) + t)
        return (self.activation_fn(f1) * (1 - s) + s * self.activation_fn(f2),)


class ScanCfC(GatedLayer):
    r"""Closed-form continuous-time network, for sequences that are sampled irregularly.

    .. math::

        b = \phi(W_i x + b_i + W_h h), \quad \phi(v) = 1.7159 \tanh(0.666 v) \\
        f_1 = \tanh(W_1 b + b_1), \quad f_2 = \tanh(W_2 b + b_2) \\
        s = \sigma(t \cdot (W_a b + b_a) + W_b b + b_b) \\
        h' = f_1 \odot (1 - s) + s \odot f_2

    t is the time that passes in the step: the call's ``intervals``, or 1. It is rounded to the
    dtype of the products, as xs is. The carry is one array (*batch, H). Options: see
    ``GatedLayer``; dropout of inputs leaves t as it is.

    When to choose it:
      For sequences that are sampled irregularly: the time that passes is an input of the step's
      closed form, so nothing solves a differential equation numerically (Hasani et al. 2022). Where
      all steps take the same time, it is one gated layer among others.

    Attributes:
      backbone_features: the width of b.
      backbone_layers: how many layers make b of x and h, each as the first one.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_cfc", features=4, backbone_features=8)
      >>> xs, intervals = jnp.ones((7, 2, 3)), jnp.full((7, 2), 0.5)
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> carry, ys = layer.apply(variables, None, xs, intervals=intervals)
      >>> ys.shape
      (7, 2, 4)

    References:
      Hasani et al., Closed-form Continuous-time Neural Networks, 2022
      (https://arxiv.org/abs/2106.13898).
    """

    backbone_features: int = 128
    backbone_layers: int = 1

    cell_class: ClassVar = CfC
    own_options: ClassVar = (
        Option("backbone_features", "int >= 1", "the width of the backbone.", takes.positive_int),
        Option("backbone_layers", "int >= 1", "the depth of the backbone.", takes.positive_int),
    )
