"""The linear recurrent unit."""

import dataclasses
import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

from zoo.recurrent.call import option_checks as takes
from zoo.recurrent.call.options import Option
from zoo.recurrent.cell import Carry, Projected, Weights
from zoo.recurrent.layers.state_space import StateSpace, StateSpaceLayer, in_float32

# Drawn in the place of zero, whose logarithm no parameter can be.
_LEAST = 1e-30


@dataclasses.dataclass(frozen=True)
class LRU(StateSpace):
    """The equations of ``ScanLRU``."""

    spectrum: ClassVar[tuple[str, ...]] = ("nu_log", "theta_log", "gamma_log")

    def elements(self, u: Projected, weights: Weights) -> tuple[Carry, Carry]:
        """λ, the same for all steps, and what is written."""
        nu, theta, gamma = (weights[name]["vector"] for name in self.spectrum)
        size, angle = jnp.exp(-jnp.exp(nu)), jnp.exp(theta)
        scale = jnp.broadcast_to(jnp.exp(gamma), u["re"].shape)
        return (size * jnp.cos(angle), size * jnp.sin(angle)), (scale * u["re"], scale * u["im"])


class ScanLRU(StateSpaceLayer):
    r"""Linear recurrent unit: a complex diagonal state, initialised on a ring.

    .. math::

        \lambda = \exp(-e^{\nu} + i e^{\theta}) \\
        s' = \lambda \odot s + e^{\gamma} \odot (B x) \\
        y = \mathrm{Re}(C s') + D \odot x

    ys are (T, *batch, H); the carry is (re, im) of s, real arrays (*batch, N). The parameters are
    ``nu_log``, ``theta_log`` and ``gamma_log`` (N,), kernels ``B_re`` and ``B_im`` (D, N), ``C_re``
    and ``C_im`` (N, H), and the vector ``D`` (H,); where x is not as wide as y, D is a kernel
    (D, H). There are no biases. λ is drawn uniformly on a ring, and γ starts as what keeps the
    state's size: γ = ½ log(1 − \|λ\|²). Options: see ``LinearLayer``.

    When to choose it:
      For long sequences and a memory whose length is set when it is drawn: the closer ``r_min`` and
      ``r_max`` are to one, the longer. Orvieto et al. 2023 match deep state space models on the
      Long Range Arena with it. λ does not depend on the input, so the layer cannot choose what to
      keep; ``scan_rg_lru`` and ``scan_min_gru`` can.

    Attributes:
      state_features: N, how many complex numbers the state has; None for H.
      r_min: the least \|λ\| that is drawn.
      r_max: the largest.
      max_phase: the largest angle of λ that is drawn.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_lru", features=4, state_features=6, r_min=0.9, r_max=0.99)
      >>> xs = jnp.ones((7, 2, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> (re, im), ys = layer.apply(variables, None, xs)
      >>> re.shape, ys.shape
      ((2, 6), (7, 2, 4))

    References:
      Orvieto et al., Resurrecting Recurrent Neural Networks for Long Sequences, 2023
      (https://arxiv.org/abs/2303.06349).
    """

    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2 * math.pi

    cell_class: ClassVar = LRU
    own_options: ClassVar = (
        Option("r_min", "number in [0, 1)", "the least size of an eigenvalue drawn.", takes.rate),
        Option("r_max", "number in (r_min, 1]", "the largest size.", takes.radius),
        Option("max_phase", "finite number >= 0", "the largest angle.", takes.finite_not_negative),
    )

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if not self.r_min < self.r_max:
            raise ValueError(
                f"r_max must be more than r_min, which is {self.r_min}, got {self.r_max}. "
                "Eigenvalues are drawn from the ring between them."
            )

    @nn.nowrap
    def _vector_init(self, name: str, drawn: Weights) -> tuple[str, Initializer]:
        """The ring, and the scale of inputs that belongs to it."""

        def nu_log(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            inner, outer = self.r_min**2, self.r_max**2
            u = jax.random.uniform(key, shape, dtype, _LEAST, 1 - 1e-6)
            return jnp.log(-0.5 * jnp.log(u * (outer - inner) + inner))

        def theta_log(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            u = jax.random.uniform(key, shape, dtype, _LEAST)
            return jnp.log(max(self.max_phase, _LEAST) * u)

        def gamma_log(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            nu = drawn["nu_log"]["vector"].astype(dtype)
            return 0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(nu)))

        known = {"nu_log": nu_log, "theta_log": theta_log, "gamma_log": gamma_log}
        if name not in known:
            return super()._vector_init(name, drawn)
        return name, in_float32(known[name])
