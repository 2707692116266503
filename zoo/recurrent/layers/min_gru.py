"""The minimal GRU without a hidden state in its gate."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from zoo.recurrent.call import option_checks as takes
from zoo.recurrent.call.options import Option
from zoo.recurrent.cell import Carry, Kernel, LinearCell, Projected, Weights
from zoo.recurrent.layers.linear import LinearLayer


def positive(v: jax.Array) -> jax.Array:
    """The candidate of the paper's log-space form: v + 1/2 where v >= 0, else σ(v)."""
    # Each side sees its own half only, so that neither overflows; both have the slope that is due.
    above, below = jnp.maximum(v, 0), jnp.minimum(v, 0)
    return jnp.where(v >= 0, above + 0.5, jax.nn.sigmoid(below))


CANDIDATE = Option(
    "candidate",
    "linear or positive",
    "what the candidate state is made of.",
    takes.one_of("linear", "positive"),
)


@dataclasses.dataclass(frozen=True)
class MinGRU(LinearCell):
    """The equations of ``ScanMinGRU``."""

    candidate: str = "linear"

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``iz in``, each with a bias."""
        read = Kernel("input", self.features, bias=self.use_bias)
        return {"iz": read, "in": read}

    def elements(self, u: Projected, weights: Weights) -> tuple[Carry, Carry]:
        """What is kept of h, and what is written."""
        n = positive(u["in"]) if self.candidate == "positive" else u["in"]
        z = jax.nn.sigmoid(u["iz"])
        return (jax.nn.sigmoid(-u["iz"]),), (z * n,)


class ScanMinGRU(LinearLayer):
    r"""Minimal GRU whose gate and candidate see the input alone: a linear recurrence.

    .. math::

        z = \sigma(W_{iz} x + b_{iz}), \quad n = W_{in} x + b_{in} \\
        h' = (1 - z) \odot h + z \odot n

    The carry is one array (*batch, H). Options: see ``LinearLayer``. Computed as it is written:
    with factors between 0 and 1 it is stable, and sums of logarithms over time are not.

    When to choose it:
      In the place of a GRU where sequences are long and training has to run in parallel over time.
      The gate mixes state and candidate, so the state stays as small as the candidates are. No gate
      sees the state: use two layers or more, with something that is not linear between them. Feng
      et al. 2024 found such networks to match recent sequence models.

    Attributes:
      candidate: "linear" is n as above. "positive" is the candidate of the paper's log-space form,
        which is another model: g(n), with g(v) = v + 1/2 where v ≥ 0, else σ(v).

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_min_gru", features=4)
      >>> xs = jnp.ones((7, 2, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> carry, ys = layer.apply(variables, None, xs)
      >>> sorted(variables["params"]), ys.shape
      (['in', 'iz'], (7, 2, 4))

    References:
      Feng et al., Were RNNs All We Needed?, 2024 (https://arxiv.org/abs/2410.01201).
    """

    candidate: str = "linear"

    cell_class: ClassVar = MinGRU
    own_options: ClassVar = (CANDIDATE,)
