"""The leaf layers of the zoo, by name."""

from typing import ClassVar

from zoo.recurrent import cells, layer_norm_cells
from zoo.recurrent.layer import GatedLayer


class ScanGRU(GatedLayer):
    r"""Gated recurrent unit, reset after the product.

    .. math::

        r = \sigma(W_{ir} x + b_{ir} + W_{hr} h) \\
        z = \sigma(W_{iz} x + b_{iz} + W_{hz} h) \\
        n = \tanh(W_{in} x + b_{in} + r \odot (W_{hn} h + b_{hn})) \\
        h' = (1 - z) \odot n + z \odot h

    Same parameters as ``nn.scan`` over ``nn.GRUCell``; same equations as PyTorch and cuDNN. The
    carry is one array (*batch, H). Options: see ``GatedLayer``.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_gru", features=4)
      >>> xs = jnp.ones((7, 2, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> carry, ys = layer.apply(variables, None, xs)
      >>> carry.shape, ys.shape
      ((2, 4), (7, 2, 4))

    References:
      Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014
      (https://arxiv.org/abs/1406.1078).
    """

    cell_class: ClassVar = cells.GRU


class ScanLSTM(GatedLayer):
    r"""Long short-term memory.

    .. math::

        i = \sigma(W_{ii} x + W_{hi} h + b_{hi}), \quad
        f = \sigma(W_{if} x + W_{hf} h + b_{hf}) \\
        g = \tanh(W_{ig} x + W_{hg} h + b_{hg}), \quad
        o = \sigma(W_{io} x + W_{ho} h + b_{ho}) \\
        c' = f \odot c + i \odot g \\
        h' = o \odot \tanh(c')

    Same parameters as ``nn.scan`` over ``nn.LSTMCell``. The carry is (c, h), Flax's order, arrays
    (*batch, H). Options: see ``GatedLayer``.

    Attributes:
      forget_bias: added to the forget gate's bias when it is initialised.
      projection: P, for h' = W_proj (o ⊙ tanh(c')): then h and ys have P features, and the
        parameter ``proj/kernel`` has the shape (H, P).

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_lstm", features=4, projection=2)
      >>> xs = jnp.ones((7, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> (c, h), ys = layer.apply(variables, None, xs)
      >>> c.shape, h.shape, ys.shape
      ((4,), (2,), (7, 2))

    References:
      Hochreiter & Schmidhuber, Long Short-Term Memory, 1997; Sak, Senior & Beaufays, Long
      Short-Term Memory Based Recurrent Neural Network Architectures, 2014
      (https://arxiv.org/abs/1402.1128); Jozefowicz et al., An Empirical Exploration of Recurrent
      Network Architectures, 2015 (the forget bias).
    """

    forget_bias: float = 0.0
    projection: int | None = None

    cell_class: ClassVar = cells.LSTM
    cell_options: ClassVar = ("forget_bias", "projection")


class ScanSimplifiedGRU(GatedLayer):
    r"""Gated recurrent unit in its first form: reset before the product.

    .. math::

        r = \sigma(W_{ir} x + b_{ir} + W_{hr} h), \quad
        z = \sigma(W_{iz} x + b_{iz} + W_{hz} h) \\
        n = \tanh(W_{in} x + b_{in} + W_{hn} (r \odot h)) \\
        h' = (1 - z) \odot h + z \odot n

    The carry is one array (*batch, H). Options: see ``GatedLayer``.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_simplified_gru", features=4)
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> sorted(variables["params"])
      ['hn', 'hr', 'hz', 'in', 'ir', 'iz']

    References:
      Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014, equations 5-8
      (https://arxiv.org/abs/1406.1078).
    """

    cell_class: ClassVar = cells.SimplifiedGRU


class ScanElman(GatedLayer):
    r"""Simple recurrent network.

    .. math::

        h' = \tanh(W_i x + b_i + W_h h)

    Same parameters as ``nn.scan`` over ``nn.SimpleCell``. The carry is one array (*batch, H).
    ``activation_fn="relu"`` gives the network of Le, Jaitly & Hinton 2015. Options: see
    ``GatedLayer``.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_elman", features=4, activation_fn="relu")
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> sorted(variables["params"])
      ['h', 'i']

    References:
      Elman, Finding Structure in Time, 1990.
    """

    cell_class: ClassVar = cells.Elman


class ScanMGU(GatedLayer):
    r"""Minimal gated unit.

    .. math::

        f = \sigma(W_{if} x + b_{if} + W_{hf} h) \\
        n = \tanh(W_{in} x + b_{in} + f \odot (W_{hn} h + b_{hn})) \\
        h' = (1 - f) \odot n + f \odot h

    Same parameters as ``nn.scan`` over ``nn.MGUCell``: the forget gate's bias starts at one. The
    carry is one array (*batch, H). Options: see ``GatedLayer``.

    Attributes:
      reset_gate: whether f also acts inside the candidate; without it, n = tanh(W_in x + b_in +
        W_hn h).

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_mgu", features=4)
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> sorted(variables["params"])
      ['hf', 'hn', 'if', 'in']

    References:
      Zhou et al., Minimal Gated Unit for Recurrent Neural Networks, 2016
      (https://arxiv.org/abs/1603.09420).
    """

    reset_gate: bool = True

    cell_class: ClassVar = cells.MGU
    cell_options: ClassVar = ("reset_gate",)


class ScanLayerNormGRU(ScanGRU):
    r"""GRU whose products are layer-normalised.

    Every product W x and W h of the GRU is replaced by LN(W x) and LN(W h), each with a ``scale``
    of its own beside its kernel; the biases are added afterwards.

    Attributes:
      epsilon: added to the variance.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_layer_norm_gru", features=4)
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> sorted(variables["params"]["ir"])
      ['bias', 'kernel', 'scale']

    References:
      Ba, Kiros & Hinton, Layer Normalization, 2016 (https://arxiv.org/abs/1607.06450).
    """

    epsilon: float = 1e-6

    cell_class: ClassVar = layer_norm_cells.LayerNormGRU
    cell_options: ClassVar = ("epsilon",)


class ScanLayerNormLSTM(ScanLSTM):
    r"""LSTM whose products and cell state are layer-normalised.

    Every product W x and W h of the LSTM is replaced by LN(W x) and LN(W h), each with a ``scale``
    beside its kernel, and h' = o ⊙ tanh(LN(c')), with ``c/scale`` and ``c/bias``.

    Attributes:
      epsilon: added to the variance.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_layer_norm_lstm", features=4)
      >>> variables = layer.init(jax.random.key(0), None, jnp.ones((7, 2, 3)))
      >>> sorted(variables["params"]["c"])
      ['bias', 'scale']

    References:
      Ba, Kiros & Hinton, Layer Normalization, 2016 (https://arxiv.org/abs/1607.06450).
    """

    epsilon: float = 1e-6

    cell_class: ClassVar = layer_norm_cells.LayerNormLSTM
    cell_options: ClassVar = ("forget_bias", "projection", "epsilon")
