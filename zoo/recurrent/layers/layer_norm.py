"""Layer-normalised cells: the products are normalised over their features before they are used."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from zoo.recurrent.call import options
from zoo.recurrent.cell import Cell, Kernel, Product, Weights
from zoo.recurrent.engine import IMPLEMENTATIONS
from zoo.recurrent.engine.products import add
from zoo.recurrent.layers.gru import GRU, ScanGRU
from zoo.recurrent.layers.lstm import LSTM, ScanLSTM


def normalise(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    """Normalises (..., H) over its last axis and multiplies by ``scale`` (H,)."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    scale = jnp.broadcast_to(scale, x.shape).astype(x.dtype)
    return centred * jax.lax.rsqrt(variance + epsilon) * scale


def _with_scales(table: dict[str, Kernel]) -> dict[str, Kernel]:
    return {
        name: kernel
        if name == "proj" or kernel.diagonal
        else dataclasses.replace(kernel, scale=True)
        for name, kernel in table.items()
    }


class _NormalisedProducts:
    """Each product, normalised with its kernel's own scale, plus its addend."""

    def __init__(self, product: Product, weights: Weights, epsilon: float):
        self.product, self.weights, self.epsilon = product, weights, epsilon

    def __call__(self, a: jax.Array, **addends: jax.Array | None) -> tuple[jax.Array, ...]:
        bare = self.product(a, **dict.fromkeys(addends))
        return tuple(
            add(normalise(x, self.weights[name]["scale"], self.epsilon), addend)
            if "scale" in self.weights[name]
            else add(x, addend)
            for x, (name, addend) in zip(bare, addends.items(), strict=True)
        )


@dataclasses.dataclass(frozen=True)
class NormalisedCell(Cell):
    """What layer-normalised cells have in common: every product goes through a normalisation."""

    epsilon: float = 1e-6

    def project(self, product: Product, x: jax.Array, weights: Weights) -> dict[str, jax.Array]:
        """LN(W_i x) + b."""
        return super().project(_NormalisedProducts(product, weights, self.epsilon), x, weights)

    def of_state(self, recur: Product, weights: Weights) -> Product:
        """LN(W_h h) + what is added."""
        return _NormalisedProducts(recur, weights, self.epsilon)


@dataclasses.dataclass(frozen=True)
class LayerNormGRU(NormalisedCell, GRU):
    """The equations of ``ScanLayerNormGRU``."""

    def declare(self) -> dict[str, Kernel]:
        """Those of the GRU, each with a scale."""
        return _with_scales(super().declare())


class ScanLayerNormGRU(ScanGRU):
    r"""Gated recurrent unit with layer normalisation inside the step.

    .. math::

        r = \sigma(\mathrm{LN}(W_{ir} x) + b_{ir} + \mathrm{LN}(W_{hr} h)) \\
        z = \sigma(\mathrm{LN}(W_{iz} x) + b_{iz} + \mathrm{LN}(W_{hz} h)) \\
        n = \tanh(\mathrm{LN}(W_{in} x) + b_{in} + r \odot (\mathrm{LN}(W_{hn} h) + b_{hn})) \\
        h' = (1 - z) \odot n + z \odot h

    LN(v) is v less its mean, divided by its standard deviation, times a ``scale`` that lies beside
    each kernel. The carry is one array (*batch, H). Options: see ``GatedLayer``.

    When to choose it:
      Where training a GRU is unstable or slow: normalisation keeps the size of what the gates are
      made of, whatever the size of inputs and state. It uses no statistics of the batch, so it is
      the same for any batch size and length, and in training as in use (Ba, Kiros & Hinton 2016). A
      step costs more than without.

    Attributes:
      epsilon: added to the variance.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_layer_norm_gru", features=4)
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> sorted(variables["params"]["ir"])
      ['bias', 'kernel', 'scale']

    References:
      Ba, Kiros & Hinton, Layer Normalization, 2016 (https://arxiv.org/abs/1607.06450); Cho et al.,
      Learning Phrase Representations using RNN Encoder-Decoder, 2014
      (https://arxiv.org/abs/1406.1078).
    """

    epsilon: float = 1e-6

    cell_class: ClassVar = LayerNormGRU
    own_options: ClassVar = (options.implementation(*IMPLEMENTATIONS),)


@dataclasses.dataclass(frozen=True)
class LayerNormLSTM(NormalisedCell, LSTM):
    """The equations of ``ScanLayerNormLSTM``."""

    def declare(self) -> dict[str, Kernel]:
        """Those of the LSTM, each but the projection with a scale, and ``c`` (scale, bias)."""
        state = Kernel("none", self.features, bias=self.use_bias, scale=True)
        return {**_with_scales(super().declare()), "c": state}

    def read(self, c: jax.Array, weights: Weights) -> jax.Array:
        """LN(c)."""
        own = weights["c"]
        return add(normalise(c, own["scale"], self.epsilon), own.get("bias"))


class ScanLayerNormLSTM(ScanLSTM):
    r"""Long short-term memory with layer normalisation inside the step.

    .. math::

        i = \sigma(\mathrm{LN}(W_{ii} x) + \mathrm{LN}(W_{hi} h) + b_{hi}), \quad
        f = \sigma(\mathrm{LN}(W_{if} x) + \mathrm{LN}(W_{hf} h) + b_{hf}) \\
        g = \tanh(\mathrm{LN}(W_{ig} x) + \mathrm{LN}(W_{hg} h) + b_{hg}), \quad
        o = \sigma(\mathrm{LN}(W_{io} x) + \mathrm{LN}(W_{ho} h) + b_{ho}) \\
        c' = f \odot c + i \odot g \\
        h' = o \odot \tanh(\mathrm{LN}(c') + b_c)

    LN(v) is v less its mean, divided by its standard deviation, times a ``scale`` that lies beside
    each kernel, and in ``c`` with the bias b_c. The carry is (c, h), arrays (*batch, H). Options:
    see ``ScanLSTM`` and ``GatedLayer``.

    When to choose it:
      Where training an LSTM is unstable or slow, and for long sequences, for which Ba, Kiros &
      Hinton 2016 found it most helpful. The cell state is normalised where it is read, so it can
      grow without driving the output to its bounds. New layers let gradients of many steps back
      grow, so clip them.

    Attributes:
      epsilon: added to the variance.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_layer_norm_lstm", features=4)
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> sorted(variables["params"]["c"])
      ['bias', 'scale']

    References:
      Ba, Kiros & Hinton, Layer Normalization, 2016 (https://arxiv.org/abs/1607.06450); the
      papers of the LSTM: doi:10.1162/neco.1997.9.8.1735, doi:10.1162/089976600300015015 and
      https://arxiv.org/abs/1402.1128.
    """

    epsilon: float = 1e-6

    cell_class: ClassVar = LayerNormLSTM
    own_options: ClassVar = (options.implementation(*IMPLEMENTATIONS),)
