"""The real-gated linear recurrent unit of Griffin."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

from zoo.recurrent.cell import Carry, Kernel, LinearCell, Product, Projected, Weights
from zoo.recurrent.layers.linear import LinearLayer
from zoo.recurrent.layers.state_space import in_float32

# The paper's c, and the bound of a square root's derivative in its authors' code.
_SHARPNESS = 8.0
_MOST = 1000.0


@jax.custom_jvp
def bounded_sqrt(x: jax.Array) -> jax.Array:
    """The square root, whose derivative is 1000 at most: it has no bound as x goes to 0."""
    return jnp.sqrt(x)


@bounded_sqrt.defjvp
def _bounded_sqrt_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    return bounded_sqrt(x), t * jax.lax.rsqrt(jnp.maximum(4 * x, 1 / _MOST**2))


@dataclasses.dataclass(frozen=True)
class RGLRU(LinearCell):
    """The equations of ``ScanRGLRU``."""

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``ia`` and ``ix``, block-diagonal and with biases, and the vector ``Lambda``."""
        gate = Kernel("state", self.features, bias=self.use_bias, heads=self.heads)
        return {"ia": gate, "ix": gate, "Lambda": Kernel("none", self.features, diagonal=True)}

    @property
    def kernels(self) -> dict[str, Kernel]:
        """As they are declared."""
        return self.declare()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The projection of inputs of another width than h."""
        return ("in",)

    def kernels_for(self, inputs: int) -> dict[str, Kernel]:
        """Where x is not as wide as h, a kernel ``in`` makes it so, as in a residual's shortcut."""
        if inputs == self.features:
            return self.kernels
        return {"in": Kernel("input", self.features)} | self.kernels

    def project(self, product: Product, x: jax.Array, weights: Weights) -> dict[str, jax.Array]:
        """What goes into both gates, and the input as wide as h."""
        if "in" in weights:
            (x,) = product(x, **{"in": None})
        biases = {name: weights[name].get("bias") for name in ("ia", "ix")}
        a, i = product(x, **biases)
        return {"a": a, "i": i, "x": x.astype(a.dtype)}

    def elements(self, u: Projected, weights: Weights) -> tuple[Carry, Carry]:
        """What is kept of h, and what is written."""
        decay = jax.nn.softplus(weights["Lambda"]["vector"])
        log_a = -_SHARPNESS * jnp.broadcast_to(decay, u["a"].shape) * jax.nn.sigmoid(u["a"])
        # sqrt(1 - a²), whose two terms would cancel.
        scale = bounded_sqrt(-jnp.expm1(2 * log_a))
        return (jnp.exp(log_a),), (scale * jax.nn.sigmoid(u["i"]) * u["x"],)


class ScanRGLRU(LinearLayer):
    r"""Real-gated linear recurrent unit of Griffin: gates that see the input alone.

    .. math::

        r = \sigma(W_{ia} x + b_{ia}), \quad i = \sigma(W_{ix} x + b_{ix}) \\
        a = \exp(-8 \, \mathrm{softplus}(\Lambda) \odot r) \\
        h' = a \odot h + \sqrt{1 - a^2} \odot (i \odot x)

    The carry is one array (*batch, H). The kernels ``ia`` and ``ix`` are (H, H), or
    (N, H/N, H/N) with N ``heads``; ``Lambda`` (H,) is drawn so that a of an open gate is uniform in
    [0.9, 0.999). Where x is not as wide as h, a kernel ``in`` (D, H) projects it first. Options:
    see ``LinearLayer``.

    The derivative of the square root has no bound as a goes to 1. As in the code of the paper's
    authors it is 1000 at most, so gradients are those of the equation where 1 - a² is more than
    2.5e-7. Their code leaves the factor out at the first step and after a reset; the paper does
    not, and neither does this layer, whose first carry may be given.

    When to choose it:
      For a long memory that inputs can hold or drop, as in the language models of De et al. 2024,
      and for training in parallel over time. A new layer forgets slowly. It mixes no features of
      its state; Griffin has a short convolution before it and other layers around it for that.

    Attributes:
      heads: N, the blocks of ``ia`` and ``ix``. H has to be a multiple of N.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_rg_lru", features=4, heads=2)
      >>> xs = jnp.ones((7, 2, 4))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> carry, ys = layer.apply(variables, None, xs)
      >>> variables["params"]["ia"]["kernel"].shape, ys.shape
      ((2, 2, 2), (7, 2, 4))

    References:
      De et al., Griffin: Mixing Gated Linear Recurrences with Local Attention for Efficient
      Language Models, 2024 (https://arxiv.org/abs/2402.19427).
    """

    heads: int = 1

    cell_class: ClassVar = RGLRU

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if self.features % self.heads:
            raise ValueError(
                f"heads: expected a number that divides features={self.features}, got "
                f"{self.heads}. Cure: make features a multiple of it."
            )

    @nn.nowrap
    def _vector_init(self, name: str, drawn: Weights) -> tuple[str, Initializer]:
        """Λ, of decays that are drawn uniformly."""

        def of_decay(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            decay = jax.random.uniform(key, shape, dtype, 0.9, 0.999)
            return jnp.log(jnp.expm1(-jnp.log(decay) / _SHARPNESS))

        return name, in_float32(of_decay)

    def _known_inputs(self) -> int | None:
        """The feature size that existing parameters were made for."""
        if self.scope is None or self.scope.has_variable("params", "in"):
            return self._rows("in", self.features)
        return self.features if self.scope.has_variable("params", "Lambda") else None
