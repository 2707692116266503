"""Cells as people write them: carries, outputs and options of every kind."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from .layers import some

T, B, D, H = 6, 3, 5, 4


class MatrixLSTM(nn.RNNCellBase):
    """The mLSTM of xLSTM: a matrix, a normaliser and the logarithm of the largest gate."""

    features: int
    num_feature_axes = 1

    @nn.compact
    def __call__(self, carry, x):
        C, n, m = carry
        q, k, v = (nn.Dense(self.features, name=name)(x) for name in "qkv")
        i, f = (nn.Dense(1, name=name)(x) for name in "if")
        f = nn.log_sigmoid(f)
        largest = jnp.maximum(f + m, i)
        i, f = jnp.exp(i - largest), jnp.exp(f + m - largest)
        C = f[..., None] * C + i[..., None] * v[..., :, None] * k[..., None, :]
        n = f * n + i * k
        size = jnp.maximum(jnp.abs(jnp.sum(n * q, -1, keepdims=True)), 1.0)
        return (C, n, largest), jnp.einsum("...vk,...k->...v", C, q) / size

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        batch, size = input_shape[:-1], self.features
        return jnp.zeros((*batch, size, size)), jnp.zeros((*batch, size)), jnp.zeros((*batch, 1))


class ContinuousTime(nn.RNNCellBase):
    """A CTRNN, by steps of Euler's; its width is called ``units``, its outputs are narrower."""

    units: int
    num_feature_axes = 1

    @nn.compact
    def __call__(self, v, x):
        driven = nn.Dense(self.units, name="input")(x)
        recur, rate = nn.Dense(self.units), self.param("rate", nn.initializers.ones, (self.units,))
        rate = jnp.broadcast_to(nn.softplus(rate), v.shape)
        for _ in range(3):
            v = v + 0.1 * rate * (-v + recur(jnp.tanh(v)) + driven)
        return v, nn.Dense(2, name="readout")(v)

    def initialize_carry(self, rng, input_shape):
        return jnp.zeros((*input_shape[:-1], self.units))


class Decoder(nn.RNNCellBase):
    """A decoder that samples tokens, and reads its own; its carry comes from an encoder."""

    features: int
    tokens: int = 7
    num_feature_axes = 1

    @nn.compact
    def __call__(self, carry, x):
        state, token = carry
        x = jnp.concatenate([x, nn.Embed(self.tokens, 3)(token)], -1)
        state, y = nn.LSTMCell(self.features)(state, x)
        logits = nn.Dense(self.tokens)(y)
        token = jnp.argmax(logits, -1)
        if self.has_rng("lstm"):
            token = jax.random.categorical(self.make_rng("lstm"), logits)
        return (state, token), (logits, token)


class Residual(nn.RNNCellBase):
    """A wrapper around a cell of its own, which it calls ``cell``."""

    features: int
    num_feature_axes = 1

    def setup(self):
        self.cell = nn.GRUCell(self.features)

    def __call__(self, h, x):
        h, y = self.cell(h, x)
        return h, x[..., :1] + y

    def initialize_carry(self, rng, input_shape):
        return self.cell.initialize_carry(rng, input_shape)


class Wrapper(nn.RNNCellBase):
    """A wrapper around a cell that it is given, with names of options that others have too."""

    cell: nn.RNNCellBase
    cell_class: str = ""
    cell_options: Any = None
    num_feature_axes = 1

    @nn.compact
    def __call__(self, carry, x):
        carry, y = self.cell(carry, x)
        return carry, nn.LayerNorm()(y)

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return self.cell.initialize_carry(rng, input_shape)


class Learned(nn.RNNCellBase):
    """A cell whose initial carry is a parameter."""

    features: int
    num_feature_axes = 1

    def setup(self):
        self.first = self.param("first", nn.initializers.normal(1.0), (self.features,))
        self.dense = nn.Dense(self.features)

    def __call__(self, h, x):
        h = jnp.tanh(self.dense(jnp.concatenate([h, x], -1)))
        return h, h

    def initialize_carry(self, rng, input_shape):
        return jnp.broadcast_to(self.first, (*input_shape[:-1], self.features))


class Counting(nn.RNNCellBase):
    """Whole numbers, bools and nothing in the carry; a count of every row."""

    features: int
    num_feature_axes = 1

    @nn.compact
    def __call__(self, carry, x):
        h = nn.Dense(self.features)(jnp.concatenate([carry["h"], x], -1))
        count = carry["count"] + 1
        odd = count % 2 == 1
        h = jnp.where(odd[..., None], jnp.tanh(h), h * 0.5)
        return {"h": h, "count": count, "odd": odd, "none": None}, {"y": h, "count": count}

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        batch = input_shape[:-1]
        count, odd = jnp.zeros(batch, int), jnp.zeros(batch, bool)
        h = jnp.zeros((*batch, self.features))
        return {"h": h, "count": count, "odd": odd, "none": None}


class LayersFirst(nn.RNNCellBase):
    """A carry (layers, batch, features)."""

    features: int
    num_feature_axes = 1

    @nn.compact
    def __call__(self, carry, x):
        after = []
        for h in carry:
            h, x = nn.GRUCell(self.features)(h, x)
            after.append(h)
        return jnp.stack(after), x

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        one = nn.GRUCell(self.features, parent=None).initialize_carry(rng, input_shape)
        return jnp.stack([one, one])


class Stateless(nn.RNNCellBase):
    """A cell with an empty carry, and an output for all rows together."""

    features: int
    num_feature_axes = 1

    @nn.compact
    def __call__(self, carry, x):
        return (), (nn.Dense(self.features)(x), jnp.float32(2.0))

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return ()


class Tokens(nn.RNNCellBase):
    """A cell that reads tokens (T, *batch), without features."""

    features: int
    num_feature_axes = 0

    @nn.compact
    def __call__(self, h, x):
        return nn.GRUCell(self.features)(h, nn.Embed(7, 3)(x))

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros((*input_shape, self.features))


class Keyed(nn.RNNCellBase):
    """A random key of every row in the carry."""

    features: int
    num_feature_axes = 1

    @nn.compact
    def __call__(self, keys, x):
        both = jax.vmap(jax.random.split)(keys)
        noise = jax.vmap(lambda key: jax.random.normal(key, (self.features,)))(both[:, 0])
        return both[:, 1], nn.Dense(self.features)(x) + noise

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jax.vmap(jax.random.key)(jnp.zeros(input_shape[0], jnp.uint32))


class Noise(nn.RNNCellBase):
    """A stochastic cell with a random stream of its own."""

    features: int
    num_feature_axes = 1

    @nn.compact
    def __call__(self, h, x):
        w = self.param("w", nn.initializers.zeros, (x.shape[-1], self.features))
        noise = jax.random.normal(self.make_rng("noise"), (*x.shape[:-1], self.features))
        return h, x @ w + noise

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros((*input_shape[:-1], self.features))


class Clock(nn.RNNCellBase):
    """One count of steps for all rows."""

    features: int
    num_feature_axes = 1

    @nn.compact
    def __call__(self, carry, x):
        h, count = carry
        h = jnp.tanh(nn.Dense(self.features)(jnp.concatenate([h, x], -1)))
        return (h, count + 1), h

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros((*input_shape[:-1], self.features)), 0


class Cell(NamedTuple):
    """A cell, its options, inputs for it, and a first carry where it has none of its own."""

    cell: Callable[..., nn.RNNCellBase]
    options: dict[str, Any]
    xs: jax.Array
    carry: Any = None


FLOATS = some((T, B, D))
CELLS: dict[str, Cell] = {
    "mLSTM": Cell(MatrixLSTM, {"features": H}, FLOATS),
    "CTRNN": Cell(ContinuousTime, {"units": H}, FLOATS),
    "decoder": Cell(
        Decoder,
        {"features": H},
        FLOATS,
        ((some((B, H), 1), some((B, H), 2)), jnp.array([1, 5, 0])),
    ),
    "cell in a cell": Cell(Residual, {"features": H}, FLOATS),
    "cell as an option": Cell(Wrapper, {"cell": nn.LSTMCell(H)}, FLOATS),
    "learned carry": Cell(Learned, {"features": H}, FLOATS),
    "whole numbers": Cell(Counting, {"features": H}, FLOATS),
    "layers first": Cell(LayersFirst, {"features": H}, FLOATS),
    "empty carry": Cell(Stateless, {"features": H}, FLOATS),
    "tokens": Cell(Tokens, {"features": H}, jnp.arange(T * B).reshape(T, B) % 7),
    "keys": Cell(Keyed, {"features": H}, FLOATS),
}
