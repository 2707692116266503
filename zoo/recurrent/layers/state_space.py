"""What layers with a complex diagonal state between their inputs and outputs have in common."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Initializer

from zoo.recurrent.call import dtypes
from zoo.recurrent.call import option_checks as takes
from zoo.recurrent.call.options import Option
from zoo.recurrent.cell import Carry, Kernel, LinearCell, Product, Projected, Weights
from zoo.recurrent.layers.linear import LinearLayer


@dataclasses.dataclass(frozen=True)
class StateSpace(LinearCell):
    """``s' = λ s + (B x)``, scaled, and ``y = Re(C s) + D x``; a subclass says what λ is.

    All N numbers of s are complex, and lie in the carry as real arrays: re and im.
    """

    state_features: int | None = None

    carry_names: ClassVar[tuple[str, ...]] = ("re", "im")
    complex_pair: ClassVar[bool] = True
    spectrum: ClassVar[tuple[str, ...]] = ()
    """The vectors (N,) that a subclass makes λ and the scale of inputs of."""

    @property
    def states(self) -> int:
        """N."""
        return self.state_features or self.features

    @property
    def widths(self) -> tuple[int, ...]:
        """(N, N)."""
        return (self.states, self.states)

    @property
    def output_width(self) -> int:
        """H."""
        return self.features

    def declare(self) -> dict[str, Kernel]:
        """The spectrum, kernels ``B_re B_im C_re C_im``, and the vector ``D``."""
        table = {name: Kernel("none", self.states, diagonal=True) for name in self.spectrum}
        table |= {name: Kernel("input", self.states) for name in ("B_re", "B_im")}
        table |= {name: Kernel("state", self.features) for name in ("C_re", "C_im")}
        return table | {"D": Kernel("none", self.features, diagonal=True)}

    def kernels_for(self, inputs: int) -> dict[str, Kernel]:
        """Where x is not as wide as y, D is a kernel, as a residual's shortcut is."""
        if inputs == self.features:
            return self.kernels
        return self.kernels | {"D": Kernel("input", self.features)}

    @property
    def inputs(self) -> tuple[str, ...]:
        """Those of B."""
        return ("B_re", "B_im")

    def project(self, product: Product, x: jax.Array, weights: Weights) -> dict[str, jax.Array]:
        """B x and D x."""
        re, im = product(x, B_re=None, B_im=None)
        if "kernel" in weights["D"]:
            (skip,) = product(x, D=None)
        else:
            vector = weights["D"]["vector"]
            skip = jnp.broadcast_to(vector, x.shape) * x.astype(vector.dtype)
        return {"re": re, "im": im, "skip": skip}

    def project_state(self, product: Product, carry: Carry, weights: Weights) -> Projected:
        """Re(C s)."""
        re, im = carry
        (of_re,), (of_im,) = product(re, C_re=None), product(im, C_im=None)
        return {"state": of_re - of_im}

    def read(self, carry: Carry, u: Projected, weights: Weights) -> jax.Array:
        """Re(C s) + D x."""
        return u["state"] + u["skip"]


class StateSpaceLayer(LinearLayer):
    """Base class of layers with a complex diagonal state; see ``StateSpace``.

    Attributes:
      kernel_init: initialiser of ``B_re`` and ``B_im``, by default normal with a variance of
        1 / (2 D), and of D where that is a kernel.
      state_features: N, how many complex numbers the state has; None for H.
    """

    kernel_init: Initializer = initializers.variance_scaling(0.5, "fan_in", "normal")
    state_features: int | None = None

    readout_scale: ClassVar[float] = 1.0
    """N times the variance of ``C_re`` and ``C_im`` when they are drawn."""

    own_options: ClassVar = (
        Option(
            "state_features",
            "int >= 1, or None",
            "N, how many complex numbers the state has.",
            takes.positive_int_or_none,
        ),
    )

    @nn.nowrap
    def _kernel_init(self, name: str, kernel: Kernel, inputs: int) -> Initializer:
        """The initialiser of B, or of C."""
        if kernel.source == "input":
            return self.kernel_init
        return initializers.variance_scaling(self.readout_scale, "fan_in", "normal")

    @nn.nowrap
    def _vector_init(self, name: str, drawn: Weights) -> tuple[str, Initializer]:
        """The initialiser of the spectrum, or of D: normal."""
        return "D", initializers.normal(1.0)


def in_float32(init: Initializer) -> Initializer:
    """An initialiser that computes in float32 at least, whatever the parameter's dtype is."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return init(key, shape, dtypes.promote(dtype, jnp.float32)).astype(dtype)

    return draw
