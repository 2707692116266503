"""The minimal LSTM without a hidden state in its gates."""

import dataclasses
from typing import ClassVar

import jax

from zoo.recurrent.cell import Carry, Kernel, LinearCell, Projected, Weights
from zoo.recurrent.layers.linear import LinearLayer
from zoo.recurrent.layers.min_gru import CANDIDATE, positive


@dataclasses.dataclass(frozen=True)
class MinLSTM(LinearCell):
    """The equations of ``ScanMinLSTM``."""

    candidate: str = "linear"

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``ii if ig``, each with a bias."""
        read = Kernel("input", self.features, bias=self.use_bias)
        return {"ii": read, "if": read, "ig": read}

    def elements(self, u: Projected, weights: Weights) -> tuple[Carry, Carry]:
        """What is kept of h, and what is written.

        f / (f + i) is σ(log f - log i), which needs no quotient of numbers that underflow.
        """
        g = positive(u["ig"]) if self.candidate == "positive" else u["ig"]
        ratio = jax.nn.softplus(-u["ii"]) - jax.nn.softplus(-u["if"])
        return (jax.nn.sigmoid(ratio),), (jax.nn.sigmoid(-ratio) * g,)


class ScanMinLSTM(LinearLayer):
    r"""Minimal LSTM whose gates see the input alone and add up to one: a linear recurrence.

    .. math::

        i = \sigma(W_{ii} x + b_{ii}), \quad f = \sigma(W_{if} x + b_{if}), \quad
        g = W_{ig} x + b_{ig} \\
        h' = \frac{f}{f + i} \odot h + \frac{i}{f + i} \odot g

    The carry is one array (*batch, H). Options: see ``LinearLayer``.

    When to choose it:
      As ``scan_min_gru``, which is simpler and the one to try first; here what is kept and what is
      written have gates of their own, scaled to add up to one, for half as many parameters again.

    Attributes:
      candidate: "linear" is g as above. "positive" is the candidate of the paper's log-space form,
        which is another model: v + 1/2 where v = g ≥ 0, else σ(v).

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_min_lstm", features=4)
      >>> xs = jnp.ones((7, 2, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> carry, ys = layer.apply(variables, None, xs)
      >>> sorted(variables["params"]), ys.shape
      (['if', 'ig', 'ii'], (7, 2, 4))

    References:
      Feng et al., Were RNNs All We Needed?, 2024 (https://arxiv.org/abs/2410.01201).
    """

    candidate: str = "linear"

    cell_class: ClassVar = MinLSTM
    own_options: ClassVar = (CANDIDATE,)
