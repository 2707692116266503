"""The simplified state space layer, S5."""

import dataclasses
import functools
import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Initializer

from zoo.recurrent.call import option_checks as takes
from zoo.recurrent.call.options import Option
from zoo.recurrent.cell import Carry, Product, Projected, Weights, times
from zoo.recurrent.layers.state_space import StateSpace, StateSpaceLayer, in_float32


@dataclasses.dataclass(frozen=True)
class S5(StateSpace):
    """The equations of ``ScanS5``."""

    spectrum: ClassVar[tuple[str, ...]] = ("Lambda_re", "Lambda_im", "log_step")
    reads_intervals: ClassVar[bool] = True
    needs_intervals: ClassVar[bool] = False

    def project(self, product: Product, x: jax.Array, weights: Weights) -> dict[str, jax.Array]:
        """As without elapsed time, which is the last feature where it is given."""
        rows = weights["B_re"]["kernel"].shape[0]
        if x.shape[-1] == rows:
            return super().project(product, x, weights)
        return {**super().project(product, x[..., :rows], weights), "time": x[..., rows:]}

    def project_state(self, product: Product, carry: Carry, weights: Weights) -> Projected:
        """2 Re(C s): every number stands for its conjugate, too."""
        return {"state": 2 * super().project_state(product, carry, weights)["state"]}

    def elements(self, u: Projected, weights: Weights) -> tuple[Carry, Carry]:
        """The zero-order hold of λ and B over the steps."""
        re, im, log_step = (weights[name]["vector"] for name in self.spectrum)
        step = jnp.exp(log_step)
        if "time" in u:
            shape = u["re"].shape
            step = jnp.broadcast_to(step, shape) * u["time"].astype(step.dtype)
            re, im = jnp.broadcast_to(re, shape), jnp.broadcast_to(im, shape)
        z = re * step, im * step
        size = jnp.exp(z[0])
        factor = size * jnp.cos(z[1]), size * jnp.sin(z[1])
        hold = tuple(x * step for x in mean_exponential(z))
        return factor, times(hold, (u["re"], u["im"]), True)


def mean_exponential(z: Carry) -> Carry:
    """(exp(z) - 1) / z of complex numbers (re, im), exact where z is small, and 1 at 0."""
    re, im = z
    half = jnp.sin(im / 2)
    # exp(z) - 1, whose two terms would cancel: cos(im) - 1 is -2 sin²(im / 2).
    above = jnp.expm1(re) * jnp.cos(im) - 2 * half * half, jnp.exp(re) * jnp.sin(im)
    square = re * re + im * im
    tiny = square < 1e-10
    below = jnp.where(tiny, jnp.ones_like(square), square)
    quotient = times(above, (re / below, -im / below), True)
    # Up to the second order, for what is left out is of the third of 1e-5.
    squared = times(z, z, True)
    series = 1 + re / 2 + squared[0] / 6, im / 2 + squared[1] / 6
    return tuple(jnp.where(tiny, a, b) for a, b in zip(series, quotient, strict=True))


@functools.lru_cache(maxsize=16)
def hippo_eigenvalues(count: int) -> np.ndarray:
    """The ``count`` eigenvalues with positive imaginary part of the HiPPO-N matrix of twice that.

    The normal part of HiPPO-LegS: its eigenvalues are -1/2 + i w, where w are those of a Hermitian
    matrix.
    """
    n = np.arange(2 * count)
    root = np.sqrt(2 * n + 1)
    legs = -np.tril(np.outer(root, root), -1) - np.diag(n + 1)
    low_rank = np.sqrt(n + 0.5)
    normal = legs + np.outer(low_rank, low_rank)
    skew = normal - np.diag(np.diag(normal))
    return -0.5 + 1j * np.sort(np.linalg.eigvalsh(-1j * skew))[count:]


class ScanS5(StateSpaceLayer):
    r"""Simplified state space layer: a continuous-time state, held over steps of learned length.

    .. math::

        \bar\lambda = e^{\lambda \Delta t}, \quad
        \bar B = \lambda^{-1} (\bar\lambda - 1) \odot B \\
        s' = \bar\lambda \odot s + \bar B x \\
        y = 2\,\mathrm{Re}(C s') + D \odot x

    t is the time that passes in the step: the call's ``intervals``, or 1, rounded to the dtype of
    the products, as xs is; Δ is exp(``log_step``), one for each number of the state. ys are
    (T, *batch, H); the carry is (re, im) of s, real arrays (*batch, N). Each of the N complex
    numbers stands for its conjugate, too, so the paper's state is 2N wide. λ starts as the
    eigenvalues of HiPPO-N. The paper turns B and C into the basis of its eigenvectors; normal
    numbers, as B and C are drawn here, are after such a turn what they were before. The parameters
    are ``Lambda_re``, ``Lambda_im`` and ``log_step`` (N,), kernels ``B_re`` and ``B_im`` (D, N),
    ``C_re`` and ``C_im`` (N, H), and the vector ``D`` (H,); where x is not as wide as y, D is a
    kernel (D, H). There are no biases. Options: see ``LinearLayer``; dropout of inputs leaves t as
    it is.

    When to choose it:
      For very long sequences, and for those that are sampled irregularly, because steps of any
      length are exact. Smith, Warrington & Linderman 2023 report 87.4 % on the Long Range Arena. λ
      does not depend on the input, so the layer cannot choose what to keep.

    Attributes:
      state_features: N, how many complex numbers the state has; None for H.
      dt_min: the least Δ that is drawn; their logarithms are uniform.
      dt_max: the largest.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_s5", features=4, state_features=6)
      >>> xs, intervals = jnp.ones((7, 2, 3)), jnp.full((7, 2), 0.5)
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> (re, im), ys = layer.apply(variables, None, xs, intervals=intervals)
      >>> re.shape, ys.shape
      ((2, 6), (7, 2, 4))

    References:
      Smith, Warrington & Linderman, Simplified State Space Layers for Sequence Modeling, 2023
      (https://arxiv.org/abs/2208.04933).
    """

    dt_min: float = 0.001
    dt_max: float = 0.1

    cell_class: ClassVar = S5
    # Of real kernels (2N, H) with a variance of 1 / 2N, turned.
    readout_scale: ClassVar[float] = 0.25
    own_options: ClassVar = (
        Option("dt_min", "number > 0", "the shortest step drawn.", takes.finite_positive),
        Option("dt_max", "number >= dt_min", "the longest step.", takes.finite_positive),
    )

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if self.dt_min > self.dt_max:
            raise ValueError(
                f"dt_max must be at least dt_min, which is {self.dt_min}, got {self.dt_max}. Steps "
                "are drawn between them, uniformly in their logarithms."
            )

    @nn.nowrap
    def _vector_init(self, name: str, drawn: Weights) -> tuple[str, Initializer]:
        """HiPPO-N, and the lengths of steps."""
        if name == "log_step":
            low, high = math.log(self.dt_min), math.log(self.dt_max)

            def log_step(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
                return jax.random.uniform(key, shape, dtype, low, high)

            return name, in_float32(log_step)
        if name not in S5.spectrum:
            return super()._vector_init(name, drawn)

        def of_hippo(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            values = hippo_eigenvalues(shape[0])
            part = np.real if name == "Lambda_re" else np.imag
            return jnp.asarray(part(values), dtype)

        return name, of_hippo
