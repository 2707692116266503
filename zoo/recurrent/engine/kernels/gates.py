"""The gates of the layers that have a kernel: values, and cotangents by hand.

A kernel holds a tile of a batch and knows nothing of gates. What it calls is here, written for
arrays of any shape, so that every kernel and every test runs the same lines.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp

Arrays = tuple[jax.Array, ...]

GATES = 4
"""Sums of a step: recurrent ones with their inputs first, then those of inputs alone."""

SAVED = 5
"""Arrays that the backward pass needs of a step: four gates, and a state before it."""


def sigmoid(x: jax.Array) -> jax.Array:
    """The logistic function by tanh, for which a GPU has one instruction."""
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


class LSTM:
    """Sums i, f, g, o, all of them recurrent; the state is (h, c).

    Attributes:
      states: arrays of the state, h first.
      recurrent: sums that h takes part in.
    """

    states: ClassVar[int] = 2
    recurrent: ClassVar[int] = 4

    @staticmethod
    def forward(sums: Arrays, state: Arrays) -> tuple[Arrays, Arrays]:
        """The new state, and what is saved."""
        i, f, g, o = sums
        _, c = state
        i, f, g, o = sigmoid(i), sigmoid(f), jnp.tanh(g), sigmoid(o)
        new = f * c + i * g
        return (o * jnp.tanh(new), new), (i, f, g, o, c)

    @staticmethod
    def backward(saved: Arrays, d_state: Arrays) -> tuple[Arrays, Arrays]:
        """The cotangents of the sums, and of the old state but for what goes through the sums."""
        i, f, g, o, c = saved
        dh, dc = d_state
        seen = jnp.tanh(f * c + i * g)
        d_o = dh * seen * o * (1 - o)
        dc = dc + dh * o * (1 - seen * seen)
        d_i = dc * g * i * (1 - i)
        d_f = dc * c * f * (1 - f)
        d_g = dc * i * (1 - g * g)
        return (d_i, d_f, d_g, d_o), (jnp.zeros_like(dh), dc * f)


class GRU:
    """Sums hn, r, z, which are recurrent, and n, which is not; the state is (h,).

    ``hn`` is what the reset gate lets through: the input's share of it is a bias, or zero. The
    attributes are those of ``LSTM``.
    """

    states: ClassVar[int] = 1
    recurrent: ClassVar[int] = 3

    @staticmethod
    def forward(sums: Arrays, state: Arrays) -> tuple[Arrays, Arrays]:
        """The new state, and what is saved."""
        hn, r, z, n = sums
        (h,) = state
        r, z = sigmoid(r), sigmoid(z)
        n = jnp.tanh(n + r * hn)
        return (n + z * (h - n),), (hn, r, z, n, h)

    @staticmethod
    def backward(saved: Arrays, d_state: Arrays) -> tuple[Arrays, Arrays]:
        """The cotangents of the sums, and of the old state but for what goes through the sums."""
        hn, r, z, n, h = saved
        (dh,) = d_state
        d_n = dh * (1 - z) * (1 - n * n)
        d_z = dh * (h - n) * z * (1 - z)
        d_r = d_n * hn * r * (1 - r)
        return (d_n * r, d_r, d_z, d_n), (dh * z,)


CELLS = {"lstm": LSTM, "gru": GRU}
